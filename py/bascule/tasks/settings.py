"""The settings of a sentence-transformers folder beside config.json; every file is optional."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bascule.base.arguments import is_number
from bascule.base.json_object import json_object
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.encoder.classes import read_classes
from bascule.tasks.classifier import ClassifierSettings
from bascule.tasks.embedder import EmbedderSettings
from bascule.tasks.prompts import Prompts
from bascule.tasks.sentence_folder import ReadOptional, check_lone_transformer, read_modules
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.sentence_modules import DEFAULT_MODULES

SENTENCE_CONFIG = "sentence_bert_config.json"
LIBRARY_CONFIG = "config_sentence_transformers.json"
TOKENIZER_CONFIG = "tokenizer_config.json"

_SPECIAL_TOKENS = 2  # [CLS] and [SEP]
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_LOGITS = {"method": "forward", "method_output_name": "logits"}
# Allowed settings of a Transformer in sentence_bert_config.json that gives the last layer's tokens.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "transformer_task": ("feature-extraction",),
    "modality_config": ({"text": _TEXT},),
    "module_output_name": ("token_embeddings",),
    "processing_kwargs": ({},),
    "model_args": ({},),
    "tokenizer_args": ({},),
    "config_args": ({},),
    "model_kwargs": ({},),
    "processor_kwargs": ({},),
    "config_kwargs": ({},),
    "tokenizer_name_or_path": (),
}
_PLAIN_CLASSIFIER: Mapping[str, tuple[Any, ...]] = {
    **_PLAIN,
    "transformer_task": ("sequence-classification",),
    "modality_config": ({"text": _LOGITS},),
    "module_output_name": ("scores",),
}
# Read elsewhere, or without effect on a pass of this version.
_OTHERS = ("max_seq_length", "do_lower_case", "unpad_inputs")
_QUERIES = ("query_length", "document_length", "query_expansion")


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """The settings of an encoder's folder; `lowercases`: texts are lowercased first."""

    embedder: EmbedderSettings
    lowercases: bool


async def folder_settings(encoder: Encoder, read: ReadOptional, place: str) -> FolderSettings:
    """Read the longest text, the modules, prompts and the number of dimensions to keep.

    `read(file)` returns a file's bytes, or None if it is missing. Without modules.json: mean
    pooling, length 1, and no other file counts, as in sentence-transformers. UnsupportedModelError
    for an unsupported setting, ModelFileError for an invalid one.
    """
    modules = await read_modules(read, place)
    sentence: Mapping[str, Any] = {}
    library: Mapping[str, Any] = {}
    if modules is not None:
        names = (SENTENCE_CONFIG, LIBRARY_CONFIG)
        sentence, library = await asyncio.gather(*(_object(read, place, name) for name in names))
    _check_transformer(sentence, f"{place}/{SENTENCE_CONFIG}")
    where = f"{place}/{LIBRARY_CONFIG}"
    kind = library.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        hint = (
            "Use a sentence encoder, such as all-MiniLM-L6-v2; a CrossEncoder loads as a "
            "classifier by its config.json's architectures (...ForSequenceClassification)."
        )
        problem = f"it is a {str(kind)[:40]} of sentence-transformers, and no SentenceTransformer"
        raise UnsupportedModelError(where, problem, hint=hint)
    embedder = EmbedderSettings(
        encoder=encoder,
        max_tokens=await _max_tokens(encoder.config.positions, sentence, read, place),
        modules=DEFAULT_MODULES if modules is None else modules,
        prompts=_prompts(library, where),
        truncate_dim=_truncate_dim(library, where),
    )
    return FolderSettings(embedder, sentence.get("do_lower_case") is True)


@dataclass(frozen=True, slots=True)
class ClassifierFolder:
    """The settings of a classifier's folder; `lowercases`: texts are lowercased first."""

    settings: ClassifierSettings
    lowercases: bool


async def classifier_settings(
    encoder: Encoder, config: Mapping[str, Any], read: ReadOptional, place: str
) -> ClassifierFolder:
    """Read the longest text, the labels and the activation of scores.

    `config` is config.json; what sentence-transformers' CrossEncoder writes beside it is optional.
    Errors as `folder_settings`.
    """
    await check_lone_transformer(read, place)
    names = (SENTENCE_CONFIG, LIBRARY_CONFIG)
    sentence, library = await asyncio.gather(*(_object(read, place, name) for name in names))
    _check_transformer(sentence, f"{place}/{SENTENCE_CONFIG}", _PLAIN_CLASSIFIER)
    where = f"{place}/{LIBRARY_CONFIG}"
    kind = library.get("model_type", "CrossEncoder")
    if kind != "CrossEncoder":
        problem = f"it is a {str(kind)[:40]} of sentence-transformers, and no CrossEncoder"
        raise UnsupportedModelError(where, problem)
    if library.get("default_prompt_name") is not None:
        name = str(library["default_prompt_name"])[:40]
        raise UnsupportedModelError(where, f"its pairs follow the prompt {name!r}")
    settings = ClassifierSettings(
        encoder=encoder,
        classes=read_classes(config, library, f"{place}/config.json"),
        max_tokens=await _max_tokens(encoder.config.positions, sentence, read, place),
    )
    return ClassifierFolder(settings, sentence.get("do_lower_case") is True)


async def _object(read: ReadOptional, place: str, file: str) -> dict[str, Any]:
    data = await read(file)
    return {} if data is None else json_object(data, f"{place}/{file}")


def _check_transformer(
    sentence: Mapping[str, Any], where: str, plain: Mapping[str, tuple[Any, ...]] = _PLAIN
) -> None:
    for key, value in sentence.items():
        if key in _OTHERS or key in _QUERIES:
            continue
        if key not in plain:
            raise UnsupportedModelError(where, f"its setting {key[:40]!r} is not known")
        if value is not None and value not in plain[key]:
            problem = f"its {key} is {str(value)[:80]}, which this version does not follow"
            raise UnsupportedModelError(where, problem)
    lowers = sentence.get("do_lower_case")
    if lowers is not None and not isinstance(lowers, bool):
        raise ModelFileError(where, f"do_lower_case is {str(lowers)[:40]}, expected true or false")


async def _max_tokens(
    positions: int, sentence: Mapping[str, Any], read: ReadOptional, place: str
) -> int:
    """Return the longest text; newer folders have it only in tokenizer_config.json."""
    file, key = SENTENCE_CONFIG, "max_seq_length"
    result = sentence.get(key)
    if result is None:
        file, key = TOKENIZER_CONFIG, "model_max_length"
        result = (await _object(read, place, file)).get(key)
    if result is None:
        return positions
    # "No limit" is 1e30, as an integer or a float.
    if (
        not is_number(result)
        or not result > _SPECIAL_TOKENS
        or (isinstance(result, float) and not result.is_integer() and result < positions)
    ):
        minimum = _SPECIAL_TOKENS + 1
        problem = f"{key} is {str(result)[:40]}, expected a whole number of at least {minimum}"
        raise ModelFileError(f"{place}/{file}", problem)
    return positions if result >= positions else int(result)


def _prompts(library: Mapping[str, Any], where: str) -> Prompts:
    result = library.get("prompts")
    result = {} if result is None else result
    if not isinstance(result, dict):
        raise ModelFileError(where, "prompts is not an object of texts by name")
    texts = {"query": "", "document": ""}  # the library knows these two in any model
    for name, text in result.items():
        if text is not None and not isinstance(text, str):
            raise ModelFileError(where, f"the prompt {name[:40]!r} is not a string")
        texts[name] = text or ""
    default = library.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in texts):
        problem = f"default_prompt_name is {str(default)[:40]!r}, which is none of its prompts"
        raise ModelFileError(where, problem)
    return Prompts(texts, default)


def _truncate_dim(library: Mapping[str, Any], where: str) -> int | None:
    result = library.get("truncate_dim")
    if result is None:
        return None
    if isinstance(result, bool) or not isinstance(result, int) or result < 1:
        problem = f"truncate_dim is {str(result)[:40]}, expected a whole number of at least 1"
        raise ModelFileError(where, problem)
    return result
