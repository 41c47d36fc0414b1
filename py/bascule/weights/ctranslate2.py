"""Read the model.bin of a CTranslate2 folder as hostile input.

Format (its model.h and model.cc, binary version 6): numbers little-endian; a string is its length
as u16, including the zero byte that ends it. u32 version, the name of the specification, u32
revision, u32 number of variables; for each its name, u8 axes, u32 sizes, u8 type, u32 bytes, and
those bytes; u32 number of aliases; for each its name and the variable's. Only the standard library.
"""

from __future__ import annotations

import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import prod

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.weights.safetensors import DTYPE_NBYTES, TensorInfo

_VERSION = 6
_TYPES = ("F32", "I8", "I16", "I32", "F16", "BF16")
_MAX_VARIABLES, _MAX_AXES, _MAX_NAME = 10_000, 8, 1024
# A header precedes each variable's data: read this much where one is expected.
_AHEAD = 4096
Read = Callable[[int, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class BinHeader:
    """Contents of model.bin: the specification's name and each variable, including aliases."""

    specification: str
    variables: dict[str, TensorInfo]


class _Cursor:
    """Reads a file's small fields in order; ModelFileError if it ends too early."""

    def __init__(self, read: Read, nbytes: int, file: str) -> None:
        self._read = read
        self._nbytes = nbytes
        self._file = file
        self._ahead, self._ahead_at = b"", 0
        self.at = 0

    async def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self.need(count)
        offset = self.at - self._ahead_at
        if not 0 <= offset <= len(self._ahead) - count:
            wanted = min(max(count, _AHEAD), self._nbytes - self.at)
            self._ahead, self._ahead_at, offset = await self._read(self.at, wanted), self.at, 0
        self.at += count
        return self._ahead[offset : offset + count]

    def need(self, count: int) -> None:
        """Check that this many bytes follow."""
        if count > self._nbytes - self.at:
            problem = f"it ends after {self._nbytes:,} bytes, and {count:,} more belong to byte"
            raise ModelFileError(self._file, f"{problem} {self.at:,}")

    async def number(self, kind: str) -> int:
        """Return an unsigned number: "B", "H" or "I"."""
        (result,) = struct.unpack(f"<{kind}", await self.take(struct.calcsize(f"<{kind}")))
        return result

    async def string(self) -> str:
        """Return a string."""
        length = await self.number("H")
        if not 1 < length <= _MAX_NAME:
            raise ModelFileError(self._file, f"it has a name of {length:,} bytes")
        raw = await self.take(length)
        name = raw[:-1].decode("ascii", "replace")
        if raw[-1] or not (name.isascii() and name.isprintable()):
            raise ModelFileError(self._file, f"it has the name {raw[:40]!r}")
        return name

    def fail(self, problem: str) -> ModelFileError:
        """Return the error for an invalid field."""
        return ModelFileError(self._file, problem)

    @property
    def remaining_nbytes(self) -> int:
        """Bytes that remain."""
        return self._nbytes - self.at


async def read_bin_header(read: Read, nbytes: int, file: str) -> BinHeader:
    """Read the table of a model.bin of that size; `read` returns bytes by offset and count.

    ModelFileError unless the variables fill the file exactly, UnsupportedModelError for another
    version.
    """
    cursor = _Cursor(read, nbytes, file)
    version = await cursor.number("I")
    if version != _VERSION:
        problem = f"its version is {version:,}, and this version reads {_VERSION}"
        raise UnsupportedModelError(file, problem, hint="Convert it with a newer CTranslate2.")
    specification = await cursor.string()
    await cursor.number("I")  # its revision: new ones add variables
    variables: dict[str, TensorInfo] = {}
    for _ in range(await _count(cursor, "variables")):
        variable = await _variable(cursor)
        if variable.name in variables:
            raise cursor.fail(f"it has the variable {variable.name[:80]!r} twice")
        variables[variable.name] = variable
    for _ in range(await _count(cursor, "aliases")):
        alias, name = await cursor.string(), await cursor.string()
        if alias in variables or name not in variables:
            raise cursor.fail(f"its alias {alias[:80]!r} of {name[:80]!r} cannot be")
        variables[alias] = variables[name]
    if cursor.remaining_nbytes:
        raise cursor.fail(f"{cursor.remaining_nbytes:,} bytes follow its last alias")
    return BinHeader(specification, variables)


async def _count(cursor: _Cursor, kind: str) -> int:
    result = await cursor.number("I")
    if result > _MAX_VARIABLES:
        raise cursor.fail(f"it claims {result:,} {kind}")
    return result


async def _variable(cursor: _Cursor) -> TensorInfo:
    name = await cursor.string()
    axes = await cursor.number("B")
    if axes > _MAX_AXES:
        raise cursor.fail(f"variable {name[:80]!r} claims {axes} axes")
    shape = struct.unpack(f"<{axes}I", await cursor.take(4 * axes))
    kind, size = await cursor.number("B"), await cursor.number("I")
    if kind >= len(_TYPES):
        raise cursor.fail(f"variable {name[:80]!r} has the unknown type {kind}")
    dtype = _TYPES[kind]
    if prod(shape) * DTYPE_NBYTES[dtype] != size:
        problem = f"variable {name[:80]!r} of shape {list(shape)} and dtype {dtype}"
        raise cursor.fail(f"{problem} does not fill {size:,} bytes")
    cursor.need(size)
    result = TensorInfo(name, dtype, shape, cursor.at, size)
    cursor.at += size
    return result
