"""An index as bytes: a safetensors file of its rows and their keys, read as untrusted."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator, Sequence
from math import prod
from typing import Any

from bascule.base.arrays import Array, np
from bascule.base.json_object import JsonFault, JsonLimits, parse_json
from bascule.errors import InputError, ModelFileError
from bascule.search.blocks import Key
from bascule.search.stores import IndexStore
from bascule.weights.safetensors import header_nbytes, parse_header

_KIND = "bascule-index-1"
_MAX_HEADER = 4096
_KEYS = JsonLimits(1 << 28, 1 << 24, depth=2)
_MAX_DIM = 1 << 16


def frame(dim: int, metric: str, keys: Sequence[Key]) -> tuple[bytes, bytes]:
    """Return the bytes before the rows of an index, and after them."""
    tail = json.dumps(list(keys), separators=(",", ":")).encode()
    end = len(keys) * dim * 4
    header: dict[str, Any] = {
        "__metadata__": {"kind": _KIND, "metric": metric},
        "rows": {"dtype": "F32", "shape": [len(keys), dim], "data_offsets": [0, end]},
        "keys": {"dtype": "U8", "shape": [len(tail)], "data_offsets": [end, end + len(tail)]},
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, tail


class IndexReader:
    """A stored index: its `dim` and `metric`; `rows` first, and then `keys`."""

    def __init__(self, file: str, dim: int, metric: Any, n: int, keys_nbytes: int) -> None:
        self.dim = dim
        self.metric = metric
        self._file = file
        self._n = n
        self._keys_nbytes = keys_nbytes
        self._chunks: AsyncGenerator[bytes] | None = None
        self._rest = b""

    @classmethod
    async def open(cls, file: str, nbytes: int, chunks: AsyncGenerator[bytes]) -> IndexReader:
        """Read the header. ModelFileError if it is not an index's."""
        first = await anext(chunks, b"")
        length = header_nbytes(first, nbytes, file)
        if length > min(_MAX_HEADER, len(first) - 8):
            raise ModelFileError(file, f"its header claims {length:,} bytes")
        text = first[8 : 8 + length]
        tensors = parse_header(text, nbytes, file)
        metadata = parse_json(text).get("__metadata__", {})
        rows, keys = tensors.get("rows"), tensors.get("keys")
        sound = (
            metadata.get("kind") == _KIND
            and metadata.get("metric") in ("cosine", "dot")
            and len(tensors) == 2
            and (rows is not None and rows.dtype == "F32" and len(rows.shape) == 2)
            and (keys is not None and keys.dtype == "U8" and len(keys.shape) == 1)
        )
        if not sound or rows is None or keys is None:
            raise ModelFileError(file, "it is not an index of Bascule")
        if not 1 <= rows.shape[1] <= _MAX_DIM or keys.start < rows.start:
            raise ModelFileError(file, f"its rows have the shape {rows.shape}")
        reader = cls(file, rows.shape[1], metadata["metric"], rows.shape[0], prod(keys.shape))
        reader._chunks, reader._rest = chunks, first[8 + length :]
        return reader

    async def rows(self) -> AsyncGenerator[Array]:
        """Yield all rows, float32, some (n, dim) at a time."""
        remaining = self._n
        row = self.dim * 4
        while remaining:
            while len(self._rest) < row:
                self._rest += await self._next()
            n = min(remaining, len(self._rest) // row)
            yield np.frombuffer(self._rest, np.float32, n * self.dim).reshape(n, self.dim)
            self._rest = self._rest[n * row :]
            remaining -= n

    async def keys(self) -> list[Key]:
        """Return the keys of the rows. ModelFileError unless there is a different one per row."""
        parts = [self._rest]
        missing = self._keys_nbytes - len(self._rest)
        while missing > 0:
            parts.append(await self._next())
            missing -= len(parts[-1])
        try:
            keys: Any = parse_json(b"".join(parts), _KEYS, strict=True)
        except JsonFault as fault:
            raise ModelFileError(self._file, f"its keys are not sound: {fault}") from None
        named = isinstance(keys, list) and all(type(key) in (str, int) for key in keys)
        if not named or len(keys) != self._n or len(set(keys)) != self._n:
            problem = f"its {self._n:,} rows do not have a key each, all different"
            raise ModelFileError(self._file, problem)
        return keys

    async def _next(self) -> bytes:
        assert self._chunks is not None
        result = await anext(self._chunks, None)
        if result is None:
            raise ModelFileError(self._file, "it ends before its last row")
        return result


async def open_reader(store: IndexStore) -> IndexReader:
    """Read what a store contains. InputError if it is empty."""
    result = await store.open()
    if result is None:
        _, _, name = store.url.partition(":")
        hint = "Store it with `await index.save(name)`; the cache may have evicted it since."
        raise InputError("Index.load, name", "the name of a stored index", repr(name), hint=hint)
    return await IndexReader.open(store.url, *result)
