"""Parse JSON from untrusted files: its items are counted first, since objects take memory.

An item is a string, a number, a literal or a container; each takes up to about 100 bytes in Python,
however few it takes in the file.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bascule.base.file_kinds import check_kind
from bascule.errors import ModelFileError


@dataclass(frozen=True, slots=True)
class JsonLimits:
    """The limits of a kind of file; `depth` counts nested containers."""

    nbytes: int
    items: int
    depth: int = 64


# config.json and similar files. The largest have a label for each of 21,000 classes, twice.
SMALL = JsonLimits(4 << 20, 1 << 18)
# safetensors headers and shard indexes: 12 items per tensor, 65,000 tensors.
TENSOR_TABLE = JsonLimits(16 << 20, 1 << 20)
# 262,144 tokens with 515,000 merges as pairs are 32 MB and 2.07 million items.
TOKENIZER = JsonLimits(32 << 20, 1 << 21)
# A hash of 64 digits per chunk.
MANIFEST = JsonLimits(16 << 20, 1 << 18)

# Runs to the end if nothing closes it, and never backtracks: linear for any text.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
# float() of a longer integer is an OverflowError; tokenizer configs have integers of 31 digits.
_MAX_DIGITS = 300
_DIGITS = re.compile(rb"[0-9]{%d}" % (_MAX_DIGITS + 1))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_PAIR = rb"[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_NO_LONE_SURROGATE = re.compile(
    rb"(?:[^\\]++|\\(?:[^u]|u(?:(?![dD][89a-fA-F])|%b)))*+" % _PAIR, re.DOTALL
)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")


class JsonFault(ValueError):
    """The text is not JSON, or exceeds a limit; the message says which."""


def parse_json(data: bytes, limits: JsonLimits = SMALL, *, strict: bool = False) -> Any:
    """Parse UTF-8 text within limits; JsonFault for anything else.

    No string has a lone surrogate and no integer more than 300 digits. `strict` also rejects NaN,
    infinities and duplicate names in an object.
    """
    _check_size(data, limits)
    _check_surrogates(data)
    try:
        return json.loads(data.decode("utf-8-sig"), **(_STRICT if strict else {}))
    except JsonFault:
        raise
    except (ValueError, RecursionError):
        raise JsonFault("it is not JSON") from None


def read_json(data: bytes, file: str, limits: JsonLimits = SMALL) -> Any:
    """Parse a model's file; ModelFileError, naming the file, for what `parse_json` rejects."""
    try:
        return parse_json(data, limits)
    except JsonFault as fault:
        check_kind(data, file)
        raise ModelFileError(file, str(fault)) from None


def json_object(data: bytes, file: str, limits: JsonLimits = SMALL) -> dict[str, Any]:
    """Parse a model's file that contains one object; errors as `read_json`."""
    result = read_json(data, file, limits)
    if not isinstance(result, dict):
        raise ModelFileError(file, "it is not a JSON object")
    return result


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JsonFault("a name occurs twice")
    return result


def _reject_constant(name: str) -> Any:
    raise JsonFault(f"{name} is not a JSON number")


_STRICT: dict[str, Any] = {"object_pairs_hook": _unique, "parse_constant": _reject_constant}


def _check_size(data: bytes, limits: JsonLimits) -> None:
    if len(data) > limits.nbytes:
        raise JsonFault(f"it has {len(data):,} bytes, and at most {limits.nbytes:,} are read")
    # Few brackets and commas, even counting those in strings: no need to remove the strings.
    opened = data.count(b"[") + data.count(b"{")
    if opened <= limits.depth and _n_items(data) <= limits.items and not _DIGITS.search(data):
        return
    # A string is one item, and may contain escaped quotes.
    if data.count(b'"') > 4 * limits.items:
        raise JsonFault(f"it holds more than {limits.items:,} items")
    bare = _STRING.sub(b"", data)
    if _n_items(bare) > limits.items:
        raise JsonFault(f"it holds more than {limits.items:,} items")
    steps = bare.translate(_STEPS, _NOT_BRACKETS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > limits.depth:
        raise JsonFault(f"its containers are nested more than {limits.depth} deep")
    if _DIGITS.search(bare):
        raise JsonFault(f"a number in it has more than {_MAX_DIGITS} digits")


def _n_items(bare: bytes) -> int:
    """Count the items of a text without its strings: each opens a container or follows a mark."""
    return 1 + sum(map(bare.count, (b",", b":", b"[", b"{")))


def _check_surrogates(data: bytes) -> None:
    """Reject escaped lone surrogates, which UTF-8 cannot encode."""
    if _SURROGATE.search(data) and not _NO_LONE_SURROGATE.fullmatch(data):
        raise JsonFault("it has a lone surrogate")
