"""The names of files that a load may look for in a model's folder."""

from __future__ import annotations

import re
from pathlib import Path

from bascule.errors import InputError

MANIFEST = "bascule-manifest.json"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
OLD_TOKENIZER = frozenset((VOCABULARY, MERGES))  # what a few families are read from without it
MODEL_GGUF = "model.gguf"
MODEL_BIN = "model.bin"  # CTranslate2's
VOICE = "silero_vad_16k.safetensors"  # as its package has it, with no file beside it
# The only names that are ever looked for. Shards are the one kind that a model's own file may name,
# and GGUF files the one kind that a user may.
ALLOWED_FILES = frozenset(
    {
        "config.json",
        TOKENIZER,
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        *OLD_TOKENIZER,
        "model.safetensors",
        MODEL_GGUF,
        MODEL_BIN,
        VOICE,
        "modules.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        INDEX,
        MANIFEST,
    }
)
# Weights and vocabularies in formats that are not read; asked for to say why a load fails.
FOREIGN_WEIGHTS = ("pytorch_model.bin", "onnx/model.onnx", "model.onnx", "tf_model.h5")
PIECES = "spiece.model"
FOREIGN_VOCABULARIES = ("vocab.txt", "vocab.json", "tokenizer.model", PIECES)
FOREIGN_FILES = frozenset((*FOREIGN_WEIGHTS, *FOREIGN_VOCABULARIES))
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_GGUF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.gguf")
# Of the modules of a sentence encoder, whose folders modules.json names.
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/(config\.json|model\.safetensors)")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_component(name: str) -> str:
    """The name of a part of a model, if it may be a folder's name."""
    if not _COMPONENT.fullmatch(name):
        raise InputError("component", "a folder name of letters, digits, - and _", repr(name[:80]))
    return name


def check_file(file: str) -> str:
    """The name, if it is one that may be looked for."""
    if not (may_be_read(file) or file in FOREIGN_FILES):
        raise InputError("model file", f"one of {sorted(ALLOWED_FILES)}", repr(file))
    return file


def is_gguf(file: str) -> bool:
    """Whether it is a name that a user may give to a GGUF file."""
    return _GGUF.fullmatch(file) is not None


def may_be_read(file: str) -> bool:
    """Whether a file's name is one that a load may look for."""
    named = _SHARD.fullmatch(file) or _GGUF.fullmatch(file) or _MODULE.fullmatch(file)
    return file in ALLOWED_FILES or named is not None


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a local folder that a load may read, the manifest left out."""
    results = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path
        for name, path in results.items()
        if path.is_file() and name != MANIFEST and may_be_read(name)
    }
