"""The table of model families: one row each, and how a model's files find theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.models.bert import BERT
from bascule.models.clip import CLIP
from bascule.models.dinov2 import DINO_V2
from bascule.models.distilbert import DISTILBERT
from bascule.models.family import (
    AnyFamily,
    DecoderFamily,
    EncoderFamily,
    SpeechFamily,
    VoiceFamily,
)
from bascule.models.gemma2 import GEMMA2
from bascule.models.gpt2 import GPT2
from bascule.models.kinds import unsupported_type
from bascule.models.llama import LLAMA
from bascule.models.mistral import MISTRAL
from bascule.models.modernbert import MODERN_BERT
from bascule.models.mpnet import MPNET
from bascule.models.phi3 import PHI3
from bascule.models.qwen2 import QWEN2
from bascule.models.qwen3 import QWEN3
from bascule.models.roberta import ROBERTA
from bascule.models.siglip import SIGLIP
from bascule.models.silero import SILERO
from bascule.models.t5 import T5
from bascule.models.vit import VIT
from bascule.models.whisper import WHISPER

FAMILIES: tuple[AnyFamily, ...] = (
    BERT,
    ROBERTA,
    DISTILBERT,
    MPNET,
    MODERN_BERT,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    PHI3,
    GEMMA2,
    GPT2,
    WHISPER,
    T5,
    VIT,
    DINO_V2,
    CLIP,
    SIGLIP,
)

# The family of most sentence encoders.
PLAIN_ENCODER: EncoderFamily = BERT

# Families whose folders need no config.json.
VOICE_FAMILIES: tuple[VoiceFamily, ...] = (SILERO,)

_BY_TYPE = {name: family for family in FAMILIES for name in family.model_types}
_BY_ARCHITECTURE = {
    name: family
    for family in FAMILIES
    if isinstance(family, DecoderFamily)
    for name in family.architectures
}


def family_of_config(config: Mapping[str, Any], place: str) -> AnyFamily:
    """Return the family of a config.json; UnsupportedModelError if there is none."""
    kind = config.get("model_type")
    if kind is None:
        for family in FAMILIES:
            if isinstance(family, SpeechFamily) and family.converted_keys <= config.keys():
                return family
    family = _BY_TYPE.get(kind) if isinstance(kind, str) else None
    if family is None:
        raise unsupported_type(place, "model_type", kind, FAMILIES)
    return family


def family_of_metadata(metadata: Mapping[str, Any], place: str) -> tuple[str, DecoderFamily]:
    """Return a GGUF header's architecture and its family; UnsupportedModelError."""
    kind = metadata.get("general.architecture")
    family = _BY_ARCHITECTURE.get(kind) if isinstance(kind, str) else None
    if not isinstance(kind, str) or family is None:
        raise unsupported_type(place, "architecture", kind, FAMILIES)
    return kind, family
