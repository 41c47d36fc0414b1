"""CLIP's tokenizer.json from the two files that old folders have instead."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bascule.errors import ModelFileError

_START, _END = "<|startoftext|>", "<|endoftext|>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def tokenizer_json(vocabulary: Mapping[str, Any], merges: bytes, place: str) -> bytes:
    """Return the tokenizer.json of a vocab.json and a merges.txt of the folder `place`.

    ModelFileError for ids that are not 0 to N - 1, for a vocabulary without the start and end
    tokens, and for a merge of unknown tokens.
    """
    file = f"{place}/vocab.json"
    ids = sorted(at for at in vocabulary.values() if type(at) is int)
    if ids != list(range(len(vocabulary))):
        raise ModelFileError(file, f"its ids are not 0 to {len(vocabulary) - 1}, each once")
    for mark in (_START, _END):
        if mark not in vocabulary:
            raise ModelFileError(file, f"it has no {mark}")
    start, end = vocabulary[_START], vocabulary[_END]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = sorted((each, mark) for each, mark in ((start, _START), (end, _END)))
    spaces = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    words = {"type": "Split", "pattern": {"Regex": _WORDS}, "behavior": "Removed", "invert": True}
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    model = {
        **{"type": "BPE", "unk_token": _END, "fuse_unk": False, "byte_fallback": False},
        **{"continuing_subword_prefix": "", "end_of_word_suffix": "</w>"},
        **{"vocab": vocabulary, "merges": _pairs(vocabulary, merges, f"{place}/merges.txt")},
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": [
            {"id": at, "content": mark, **flags, "special": True} for at, mark in added
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "NFC"}, spaces, {"type": "Lowercase"}],
        },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [words, {**letters, "use_regex": True}],
        },
        "post_processor": {
            **{"type": "RobertaProcessing", "sep": [_END, end], "cls": [_START, start]},
            **{"trim_offsets": False, "add_prefix_space": False},
        },
        "decoder": {**letters, "use_regex": True},
        "model": model,
    }
    return json.dumps(tokenizer, ensure_ascii=False).encode()


def _pairs(vocabulary: Mapping[str, Any], merges: bytes, file: str) -> list[list[str]]:
    """Return the pairs of a merges.txt, one per line; the first may be its version."""
    try:
        lines = merges.decode().splitlines()
    except UnicodeDecodeError:
        raise ModelFileError(file, "it is not UTF-8") from None
    first = 1 if lines and lines[0].startswith("#version") else 0
    pairs = [line.split(" ") for line in lines[first:] if line]
    for at, pair in enumerate(pairs):
        if len(pair) != 2 or not {*pair, "".join(pair)} <= vocabulary.keys():
            problem = f"merge {at} ({' '.join(pair)[:40]!r}) is not of two tokens of vocab.json"
            raise ModelFileError(file, problem)
    return pairs
