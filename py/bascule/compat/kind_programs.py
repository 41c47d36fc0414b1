"""The passes of a kind of model, for compiling shaders before any model is loaded.

Shaders depend on few of a model's sizes (the head size, whether the hidden size divides by 4):
these are of small checkpoints, and one layer has all shaders of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bascule.models.encoder.config import EncoderConfig
from bascule.models.family import AnyFamily, ImageFamily, ImageTextFamily, SpeechFamily
from bascule.models.table import FAMILIES, PLAIN_ENCODER
from bascule.program.program import Program
from bascule.tasks.embedder import EmbedderSettings
from bascule.tasks.image_text_programs import ImageTextSettings
from bascule.tasks.images import ImageModelSettings
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.speech_graph import SpeechSpec, speech_programs
from bascule.vision.processing import read_processing

_Row = TypeVar("_Row", bound=AnyFamily)

_FILE = "config.json"
_SENTENCES = EncoderConfig(
    vocabulary=30522, hidden=384, layers=1, heads=12, inner=1536, positions=512,
    activation="gelu", eps=1e-12,
)  # fmt: skip
_IMAGES: Mapping[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 1,
    "num_attention_heads": 12, "image_size": 224, "patch_size": 16,
}  # fmt: skip
_BOTH: Mapping[str, Any] = {
    "vision_config": {"num_hidden_layers": 1},
    "text_config": {"num_hidden_layers": 1},
}
_SPEECH: Mapping[str, Any] = {
    "d_model": 384, "vocab_size": 51864, "encoder_layers": 1, "decoder_layers": 1,
    "encoder_attention_heads": 6, "decoder_attention_heads": 6,
    "encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536,
}  # fmt: skip
_TIMES = 50363  # the first id of `_SPEECH` that stands for a time


def _text() -> list[Program]:
    return EmbedderSettings(Encoder(PLAIN_ENCODER, _SENTENCES), max_tokens=256).programs()


def _vision() -> list[Program]:
    family = _first(ImageFamily)
    config = family.config(_IMAGES, _FILE)
    processing = read_processing({}, config.cut.image, _FILE)
    return ImageModelSettings(family, config, processing, None).programs()


def _multimodal() -> list[Program]:
    family = _first(ImageTextFamily)
    config = family.config(_BOTH, _FILE)
    image = config.image.cut.image
    # Only their shorter edge is resized; "size" is the size of all processed images.
    processing = read_processing({**family.processing, "size": image}, image, _FILE)
    return ImageTextSettings(family, config, processing, logit_scale=1.0).programs()


def _audio() -> list[Program]:
    family = _first(SpeechFamily)
    return speech_programs(SpeechSpec(family, family.config(_SPEECH, _FILE)), "f16", _TIMES)


# By the name of the kind.
PROGRAMS: Mapping[str, Callable[[], list[Program]]] = {
    "text": _text,
    "vision": _vision,
    "audio": _audio,
    "multimodal": _multimodal,
}


def _first(kind: type[_Row]) -> _Row:
    return next(family for family in FAMILIES if isinstance(family, kind))
