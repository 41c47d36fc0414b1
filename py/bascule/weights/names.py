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
# The only names that are looked for. Shards are the only names that a model's own file may choose,
# and GGUF files the only ones that a user may.
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
# Weights and vocabularies in unsupported formats; looked for to explain why a load fails.
FOREIGN_WEIGHTS = ("pytorch_model.bin", "onnx/model.onnx", "model.onnx", "tf_model.h5")
PIECES = "spiece.model"
FOREIGN_VOCABULARIES = ("vocab.txt", "vocab.json", "tokenizer.model", PIECES)
FOREIGN_FILES = frozenset((*FOREIGN_WEIGHTS, *FOREIGN_VOCABULARIES))
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_GGUF = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}\.gguf")
# Modules of a sentence encoder, in folders that modules.json names.
_MODULE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}/(config\.json|model\.safetensors)")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_component(name: str) -> str:
    """Return a component's name; InputError if it is not a valid folder name."""
    if not _COMPONENT.fullmatch(name):
        raise InputError("component", "a folder name of letters, digits, - and _", repr(name[:80]))
    return name


def check_file(file: str) -> str:
    """Return a file's name; InputError if a load may not look for it."""
    if not (may_be_read(file) or file in FOREIGN_FILES):
        raise InputError("model file", f"one of {sorted(ALLOWED_FILES)}", repr(file))
    return file


def is_gguf(file: str) -> bool:
    """Whether it is a valid name of a user's GGUF file."""
    return _GGUF.fullmatch(file) is not None


def may_be_read(file: str) -> bool:
    """Whether a load may look for a file of that name."""
    named = _SHARD.fullmatch(file) or _GGUF.fullmatch(file) or _MODULE.fullmatch(file)
    return file in ALLOWED_FILES or named is not None


def model_files(folder: Path) -> dict[str, Path]:
    """Return the files of a local folder that a load may read, without the manifest."""
    results = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    return {
        name: path
        for name, path in results.items()
        if path.is_file() and name != MANIFEST and may_be_read(name)
    }
