"""Pack Python values by WGSL's rules: scalars, vectors, matrices, arrays and structs."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from bascule.base.arguments import did_you_mean
from bascule.errors import InputError
from bascule.kernels.wgsl_types import ArrayOf, Matrix, Scalar, StoredType, Struct, Vector, rounded

_FORMATS = {"f32": "<f", "f16": "<e", "i32": "<i", "u32": "<I"}
_MEANING = {
    "f32": "a number",
    "f16": "a number of at most 65,504",
    "i32": "a whole number of 32 bits",
    "u32": "a whole number of 32 bits, not negative",
}


def packed(type: StoredType, value: Any, where: str) -> bytes:
    """Return the bytes of a value of that type; InputError, naming `where`, if it does not fit.

    A vector takes a sequence, a matrix a sequence of columns, an array a sequence of its elements,
    a struct a mapping by member. Members whose names start with "_" are padding and optional.
    """
    memory = bytearray(rounded(type.nbytes, 4))
    _put(memory, 0, type, value, where)
    return bytes(memory)


def _put(memory: bytearray, at: int, type: StoredType, value: Any, where: str) -> None:
    if isinstance(type, Scalar):
        _put_number(memory, at, type, value, where)
    elif isinstance(type, Struct):
        _put_struct(memory, at, type, value, where)
    elif isinstance(type, Vector):
        items = _items(value, type.n, f"{type.n} numbers", where)
        for index, item in enumerate(items):
            _put_number(memory, at + index * type.scalar.nbytes, type.scalar, item, where)
    elif isinstance(type, Matrix):
        expected = f"{type.columns} columns of {type.rows} numbers"
        for index, item in enumerate(_items(value, type.columns, expected, where)):
            _put(memory, at + index * type.column.align, type.column, item, where)
    else:
        _put_array(memory, at, type, value, where)


def _put_array(memory: bytearray, at: int, type: ArrayOf, value: Any, where: str) -> None:
    if type.count is None:
        raise InputError(where, "a buffer, for an array without a size", _kind(value))
    items = _items(value, type.count, f"{type.count:,} elements of {type.element}", where)
    for index, item in enumerate(items):
        _put(memory, at + index * type.stride, type.element, item, f"{where}[{index}]")


def _put_struct(memory: bytearray, at: int, type: Struct, value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise InputError(where, f"a mapping with the members of {type}", _kind(value))
    fields: Mapping[Any, Any] = value
    names = [member.name for member in type.members]
    for name in fields:
        if name not in names:
            hint = did_you_mean(str(name), names) or f"{type} has {', '.join(names)}."
            raise InputError(where, f"members of {type}", repr(name)[:80], hint=hint)
    for member in type.members:
        if member.name in fields:
            inner = f"{where}.{member.name}" if where else member.name
            _put(memory, at + member.offset, member.type, fields[member.name], inner)
        elif not member.name.startswith("_"):
            raise InputError(where, f"a value for {member.name} ({member.type})", "none")


def _put_number(memory: bytearray, at: int, type: Scalar, value: Any, where: str) -> None:
    expected = _MEANING.get(type.name, "a number")
    number = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if type.name in ("i32", "u32"):
        if isinstance(number, float) and number.is_integer():
            raise InputError(where, expected, repr(value), hint=f"Write {int(number)}.")
        if not isinstance(number, int):
            raise InputError(where, expected, repr(value)[:80])
    elif not isinstance(number, int | float):
        raise InputError(where, expected, repr(value)[:80])
    try:
        struct.pack_into(_FORMATS[type.name], memory, at, number)
    except (struct.error, OverflowError, KeyError):
        raise InputError(where, expected, repr(value)[:80]) from None


def _items(value: Any, count: int, expected: str, where: str) -> Sequence[Any]:
    """Return the items of a sequence of exactly that length."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, str | bytes) or not isinstance(listed, Sequence):
        raise InputError(where, expected, _kind(value))
    items: Sequence[Any] = listed
    if len(items) != count:
        raise InputError(where, expected, f"{len(items):,}")
    return items


def _kind(value: object) -> str:
    return f"a value of type {type(value).__name__}"
