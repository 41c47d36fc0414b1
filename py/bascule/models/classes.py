"""Classes of models (embedding, text generation, vision, ...), and how a model's files show theirs.

The evidence, best first: its config.json, the metadata of its GGUF file, the names and shapes of
its tensors. A name is the last resort, and the result says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias, cast

from bascule.models.family import SpeechFamily
from bascule.models.kinds import kind_of_type
from bascule.models.table import FAMILIES

ModelClass: TypeAlias = Literal["embedding", "text_generation", "vision", "audio", "multimodal"]
CLASSES: tuple[ModelClass, ...] = ("embedding", "text_generation", "vision", "audio", "multimodal")

_OF_TASK: Mapping[str, ModelClass] = {
    "embed": "embedding",
    "classify": "embedding",
    "generate": "text_generation",
    "transform": "text_generation",
    "transcribe": "audio",
    "see": "vision",
}
# Classes by the description of a model type in `models.kinds`.
_OF_KIND: Mapping[str, ModelClass] = {
    "sentence encoders": "embedding",
    "text generation": "text_generation",
    "text to text": "text_generation",
    "speech": "audio",
    "images": "vision",
}
# Model types of several inputs; transformers' configurations of most nest one per input.
_MULTIMODAL = (
    "clip siglip siglip2 blip blip-2 vilt llava llava_next qwen2_vl qwen2_5_vl qwen3_vl align "
    "paligemma idefics idefics2 idefics3 mllama pixtral internvl chameleon fuyu clap flava"
)
_MULTIMODAL_TYPES = frozenset(_MULTIMODAL.split())
_INPUT_CONFIGS = frozenset({"text_config", "vision_config", "audio_config"})
# The suffixes of transformers' classes.
_ARCHITECTURES: tuple[tuple[str, ModelClass], ...] = (
    (r"(VisionText|ForVisionText2Text|ForImageTextToText|ForVision2Seq)", "multimodal"),
    (r"(ForCausalLM|LMHeadModel|ForConditionalGeneration|ForSeq2SeqLM)$", "text_generation"),
    (r"(ForImageClassification|ForObjectDetection|ForSemanticSegmentation)$", "vision"),
    (r"(ForCTC|ForSpeechSeq2Seq|ForAudioClassification)$", "audio"),
    (r"(ForMaskedLM|ForSequenceClassification|ForTokenClassification)$", "embedding"),
)
# Words of names, the most significant first.
_WORDS: tuple[tuple[str, ModelClass], ...] = (
    (r"clip|siglip|llava|blip|paligemma|[-_/]vl([-_/]|$)|vision-instruct", "multimodal"),
    (r"whisper|wav2vec|hubert|speech|asr|wavlm|audio|silero|(^|[-_/])vad([-_/]|$)", "audio"),
    (r"(^|[-_/])(vit|deit|beit|swin|resnet|convnext|dinov2|detr)([-_/0-9]|$)", "vision"),
    (r"minilm|mpnet|sentence|embed|(^|[-_/])(bge|gte|e5)([-_/]|$)|bert|electra", "embedding"),
    (
        r"llama|gpt|qwen|mistral|phi|gemma|smollm|falcon|opt-|bloom|t5|bart|instruct|chat",
        "text_generation",
    ),
)
_ENCODERS_OF_GGUF = frozenset({"bert", "nomic-bert", "jina-bert-v2", "modern-bert", "t5encoder"})


def examples_of(model_class: str) -> tuple[str, ...]:
    """Return the names of the supported families of a class, from the table of families.

    A family that reads images and embeds texts is multimodal.
    """
    return tuple(family.name for family in FAMILIES if class_of_tasks(family.tasks) == model_class)


def class_of_tasks(tasks: tuple[str, ...]) -> ModelClass | None:
    """Return the class of models with these tasks."""
    classes = {_OF_TASK[task] for task in tasks if task in _OF_TASK}
    if "vision" in classes and len(classes) > 1:
        return "multimodal"
    return next((_OF_TASK[task] for task in tasks if task in _OF_TASK), None)


def class_of_config(config: Mapping[str, Any]) -> ModelClass | None:
    """Return the class from a config.json: by its parts, model_type and architectures."""
    kind = config.get("model_type")
    nested = {key for key in _INPUT_CONFIGS & config.keys() if isinstance(config[key], Mapping)}
    if kind in _MULTIMODAL_TYPES or len(nested) > 1:
        return "multimodal"
    for family in FAMILIES:
        if kind in family.model_types:
            return class_of_tasks(family.tasks)
        converted = isinstance(family, SpeechFamily) and family.converted_keys <= config.keys()
        if kind is None and converted:  # a folder of CTranslate2
            return class_of_tasks(family.tasks)
    result = _OF_KIND.get(kind_of_type(kind)) if isinstance(kind, str) else None
    if result is not None:
        return result
    architectures = config.get("architectures")
    if not isinstance(architectures, list):
        return None
    names = [name[:200] for name in cast("list[object]", architectures) if isinstance(name, str)]
    return next((result for name in names if (result := _matching(_ARCHITECTURES, name))), None)


def class_of_metadata(metadata: Mapping[str, Any]) -> ModelClass | None:
    """Return the class from the metadata of a GGUF file: by its architecture and pooling."""
    kind = metadata.get("general.architecture")
    if not isinstance(kind, str):
        return None
    if kind in _ENCODERS_OF_GGUF or f"{kind}.pooling_type" in metadata:
        return "embedding"
    if kind in _MULTIMODAL_TYPES:
        return "multimodal"
    if kind == "whisper":
        return "audio"
    # llama.cpp's other architectures generate text, and have a context length.
    return "text_generation" if f"{kind}.context_length" in metadata else None


def class_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> ModelClass | None:
    """Return the class from names and shapes of tensors.

    Filters over 3 channels (C, 3, P, P) read images, filters (C, 80 or 128, 3) a spectrum; tables
    (V, C) of a thousand rows and more read tokens; an encoder normalizes what it reads there.
    """
    sees = any(len(s) == 4 and s[1] == 3 and s[2] == s[3] for s in shapes.values())
    has_mel = any(len(s) == 3 and s[1] in (80, 128) and s[2] == 3 for s in shapes.values())
    reads = any(_is_table(n, s) for n, s in shapes.items())
    if sees:
        return "multimodal" if reads else "vision"
    if has_mel:
        return "audio"
    if not reads:
        return None
    encodes = any(re.search(r"token_type_embeddings|embeddings\.LayerNorm", n) for n in shapes)
    return "embedding" if encodes else "text_generation"


def class_of_name(name: str) -> ModelClass | None:
    """Guess the class from a model's name."""
    return _matching(_WORDS, name[-200:].lower())


def first_class(
    evidence: tuple[tuple[str, Callable[[], ModelClass | None]], ...],
) -> tuple[ModelClass | None, str]:
    """Return the first class that the evidence shows, and that evidence; (None, "") without any."""
    for source, look in evidence:
        result = look()
        if result is not None:
            return result, source
    return None, ""


def _is_table(name: str, shape: tuple[int, ...]) -> bool:
    named = re.search(r"(word_embeddings|embed_tokens|wte|token_embd|shared|token_embedding)", name)
    return bool(named) and len(shape) == 2 and max(shape) >= 1000


def _matching(rows: tuple[tuple[str, ModelClass], ...], name: str) -> ModelClass | None:
    return next((result for pattern, result in rows if re.search(pattern, name)), None)
