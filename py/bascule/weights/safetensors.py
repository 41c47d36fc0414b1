"""Parse the header of a safetensors file as hostile input.

Format: 8 bytes little-endian header length, that many bytes of JSON, then the tensors' bytes
(https://huggingface.co/docs/safetensors, "Format"). Only the standard library: runs in a page.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

from bascule.base.json_object import TENSOR_TABLE, JsonFault, parse_json
from bascule.errors import ModelFileError

_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 48
DTYPE_NBYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor; `start` counts from the file's first byte."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    nbytes: int


def header_nbytes(first8: bytes, file_nbytes: int, file: str) -> int:
    """Return the header's length from a file's first 8 bytes. Raises ModelFileError."""
    if len(first8) < 8:
        raise ModelFileError(file, f"it ends after {len(first8)} bytes, before its header")
    (length,) = struct.unpack("<Q", first8[:8])
    if length > TENSOR_TABLE.nbytes:
        raise ModelFileError(file, f"its header claims {length:,} bytes")
    if length < 2 or 8 + length > file_nbytes:
        raise ModelFileError(
            file, f"its header claims {length:,} bytes, and the file has {file_nbytes:,}"
        )
    return length


def parse_header(head: bytes, file_nbytes: int, file: str) -> dict[str, TensorInfo]:
    """Return the tensors of a file from its header's JSON (without the 8 length bytes).

    ModelFileError unless the header describes every byte of the file exactly once.
    """
    try:
        raw: Any = parse_json(head, TENSOR_TABLE, strict=True)
    except JsonFault as fault:
        raise ModelFileError(file, f"its header is not sound: {fault}") from None
    if not isinstance(raw, dict):
        raise ModelFileError(file, "its header is not a JSON object")
    _check_metadata(raw.pop("__metadata__", {}), file)
    data_start = 8 + len(head)
    tensors = {name: _tensor(name, entry, data_start, file) for name, entry in raw.items()}
    _check_cover(tensors, data_start, file_nbytes, file)
    return tensors


def _check_metadata(metadata: Any, file: str) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ModelFileError(file, "its __metadata__ is not a map of strings")


def _tensor(name: str, entry: Any, data_start: int, file: str) -> TensorInfo:
    where = f"tensor {name[:80]!r}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ModelFileError(file, f"{where} has not just dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_NBYTES:
        raise ModelFileError(file, f"{where} has the unknown dtype {str(dtype)[:40]!r}")
    if not _whole_numbers(shape) or len(shape) > _MAX_DIMENSIONS:
        raise ModelFileError(file, f"{where} has a shape that is not a list of sizes")
    if not _whole_numbers(offsets) or len(offsets) != 2:
        raise ModelFileError(file, f"{where} has data_offsets that are not a pair of offsets")
    begin, end = offsets
    if prod(shape) > _MAX_ELEMENTS or end - begin != prod(shape) * DTYPE_NBYTES[dtype]:
        raise ModelFileError(
            file,
            f"{where} of shape {_short(shape)} and dtype {dtype} does not fill its data_offsets",
        )
    return TensorInfo(name, dtype, tuple(shape), data_start + begin, end - begin)


def _whole_numbers(value: Any) -> bool:
    """Whether it is a list of ints of at least 0; JSON's true is an int to Python, but no size."""
    return isinstance(value, list) and all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= _MAX_ELEMENTS for v in value
    )


def _short(shape: list[int]) -> str:
    return str(shape)[:80]


def _check_cover(
    tensors: dict[str, TensorInfo], data_start: int, file_nbytes: int, file: str
) -> None:
    """Check that every data byte belongs to exactly one tensor, up to the end of the file."""
    at = data_start
    for tensor in sorted(tensors.values(), key=lambda t: (t.start, t.nbytes)):
        if tensor.start != at:
            fault = "overlaps another" if tensor.start < at else "leaves a hole before it"
            raise ModelFileError(file, f"tensor {tensor.name[:80]!r} {fault}")
        at += tensor.nbytes
    if at != file_nbytes:
        raise ModelFileError(
            file, f"its header describes {at:,} bytes, and the file has {file_nbytes:,}"
        )
