"""Index: rows of numbers that stay on a device, and the search for those nearest to a query."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal, Self

from bascule.base.arguments import described, listed, whole_number
from bascule.base.arrays import Array, need_numpy, np
from bascule.base.closing import Closing
from bascule.base.turns import CrossLoopLock
from bascule.device.device import Device
from bascule.errors import InputError
from bascule.kernels.buffer import DeviceBuffer
from bascule.search import index_file
from bascule.search.blocks import Block, Blocks, Key
from bascule.search.place import open_store
from bascule.search.top import TopScores

Metric = Literal["cosine", "dot"]

METRICS: tuple[Metric, ...] = ("cosine", "dot")
_MAX_COLUMNS = 1 << 16
_MAX_RESULTS = 1024
# Scores of this many queries are on the device at a time.
_QUERIES_AT_ONCE = 64
# No product of two such rows overflows float32.
_MAX_NORM = 1e18
_MAX_KEY = 1 << 53  # whole numbers that JSON and JavaScript have


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A search's result: `scores` float32 (n, k), best first, and the `keys` of those rows.

    For one query (C,) they have no first axis. k is smaller than requested if there are fewer rows.
    """

    scores: Array
    keys: list[Any]


class Index(Closing):
    """Rows of float32 numbers on a device, searched there by matrix product and selection.

    `Index(device, 384)` takes rows of 384 numbers, such as embeddings. `metric` "cosine" scales
    rows and queries to length 1, "dot" takes them unchanged. A search is exact; only the k best
    scores and their positions leave the device. Freed by `close`, `async with`, or with its device.
    """

    def __init__(self, device: Device, dim: int, *, metric: Metric = "cosine") -> None:
        if not isinstance(device, Device):
            raise InputError("Index, device", "a Device of open_device()", described(device))
        if metric not in METRICS:
            raise InputError("Index, metric", " or ".join(map(repr, METRICS)), described(metric))
        device.check_open("Index")
        self._device = device
        self._metric: Metric = metric
        width = whole_number("Index, dim", dim, 1, _MAX_COLUMNS)
        self._blocks = Blocks(device.kernel_device, width)
        self._top = TopScores(device.kernel_device)
        self._keys: set[Key] = set()
        self._next = 0
        self._working = CrossLoopLock()
        self._closed = False

    def __repr__(self) -> str:
        where = "closed" if self._closed else f"{self.nbytes:,} bytes on {self._device.tier}"
        return f"<Index {len(self):,} x {self.dim}, {self._metric}, {where}>"

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: object) -> bool:
        return key in self._keys

    @property
    def dim(self) -> int:
        """Numbers per row."""
        return self._blocks.width

    @property
    def metric(self) -> Metric:
        """How rows are compared: "cosine" or "dot"."""
        return self._metric

    @property
    def keys(self) -> list[Key]:
        """The keys of all rows, in the order of adding."""
        return [key for block in self._blocks.listed for key in block.keys]

    @property
    def nbytes(self) -> int:
        """Bytes on the device: rows, and room for more."""
        return self._blocks.nbytes

    async def add(self, vectors: Any, keys: Iterable[Key] | None = None) -> list[Key]:
        """Add rows (n, dim), or one (dim,); return their keys.

        A key is a string or an integer that no other row has; without `keys` rows are numbered.
        Rows are copied to the device, and nothing else holds them. InputError for other shapes,
        NaN, infinity, a row of zeros with "cosine", and existing keys; LimitError if the device has
        no room. Then nothing is added.
        """
        await self._ready("Index.add")
        rows = await self._rows("Index.add, vectors", vectors)
        if rows.ndim == 1:
            rows = rows[None]
        async with self._working.turn():
            self._check_open("Index.add")
            named = self._named(keys, len(rows))
            self._blocks.check()
            async with self._device.backend.turns.turn():
                self._blocks.add(rows, named)
            self._keys.update(named)
            self._next += len(rows)
        return named

    async def remove(self, keys: Iterable[Key]) -> int:
        """Remove rows by their keys; return how many. Their memory is reused.

        InputError, and nothing is removed, if a key does not exist.
        """
        wanted = listed("Index.remove, keys", keys, "a list of keys")
        await self._ready("Index.remove")
        async with self._working.turn():
            missing = [key for key in wanted if not _is_key(key) or key not in self._keys]
            if missing:
                raise InputError("Index.remove, keys", "keys of this index", described(missing[0]))
            gone = set(wanted)
            self._blocks.check()
            try:
                await self._blocks.remove(gone)
            finally:
                self._keys = set(self.keys)
        return len(gone)

    async def search(self, queries: Any, k: int = 10) -> SearchResult:
        """Return the k rows with the highest scores for each of the queries (n, dim), or one
        (dim,).

        Among equal scores the row added first comes first. k is at most 1,024. InputError for other
        shapes, NaN and infinity, and if the index is closed; DeviceLostError if its device was lost
        with its rows.
        """
        k = whole_number("Index.search, k", k, 1, _MAX_RESULTS)
        await self._ready("Index.search")
        rows = await self._rows("Index.search, queries", queries)
        one = rows.ndim == 1
        if one:
            rows = rows[None]
        async with self._working.turn():
            self._check_open("Index.search")
            self._blocks.check()
            k = min(k, len(self))
            scores, places = np.empty((len(rows), k), np.float32), np.empty((len(rows), k), int)
            for start in range(0, len(rows) if k else 0, _QUERIES_AT_ONCE):
                part = slice(start, start + _QUERIES_AT_ONCE)
                scores[part], places[part] = await self._best(rows[part], k)
            results = [[self._blocks.key(place) for place in row] for row in places.tolist()]
        return SearchResult(scores[0], results[0]) if one else SearchResult(scores, results)

    async def save(self, name: str) -> int:
        """Write it to the cache under a name, replacing what was there; return the bytes.

        It is cached like models: `bascule cache` lists and removes it, and the least recently used
        are evicted when room is needed. InputError for an invalid name, SourceError if the cache
        has no room, SetupError if it cannot be used.
        """
        store = await open_store(_name_of(name))
        await self._ready("Index.save")
        async with self._working.turn():
            self._blocks.check()
            head, tail = index_file.frame(self.dim, self._metric, self.keys)
            nbytes = len(head) + len(self) * self.dim * 4 + len(tail)
            await store.write(nbytes, self._pieces(head, tail))
        return nbytes

    @classmethod
    async def load(cls, device: Device, name: str) -> Self:
        """Read what `save` has written, onto a device.

        InputError if nothing is stored under that name, ModelFileError if it is not an index, or
        damaged.
        """
        await need_numpy("Index.load", _NUMPY_HINT)
        await device.kernel_device.ready("Index.load")
        store = await open_store(_name_of(name))
        reader = await index_file.open_reader(store)
        index = cls(device, reader.dim, metric=reader.metric)
        try:
            start = 0
            async for rows in reader.rows():
                index._check_numbers(f"Index.load {name!r}", rows)
                async with device.backend.turns.turn():
                    index._blocks.add(rows, range(start, start + len(rows)))
                start += len(rows)
            index._rename(await reader.keys())
        except BaseException:
            index.close()
            raise
        return index

    def close(self) -> None:
        """Free its memory on the device. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._keys = set()
        blocks, top = self._blocks, self._top

        def free() -> None:
            blocks.close()
            top.close()

        self._device.backend.turns.when_free(free)

    async def _pieces(self, head: bytes, tail: bytes) -> AsyncGenerator[bytes]:
        yield head
        for block in self._blocks.listed:
            yield (await self._blocks.read(block)).tobytes()
        yield tail

    def _rename(self, keys: Sequence[Key]) -> None:
        """Assign rows that were just read their keys."""
        start = 0
        for block in self._blocks.listed:
            block.keys = list(keys[start : start + block.n])
            start += block.n
        self._keys = set(keys)
        self._next = 1 + max((key for key in keys if isinstance(key, int)), default=-1)

    async def _best(self, rows: Array, k: int) -> tuple[Array, Array]:
        """Return scores and positions (n, k) of the best rows for some queries."""
        n = len(rows)
        padded = 1 << (n - 1).bit_length()  # programs are compiled for few numbers of queries
        filled = np.zeros((padded, self.dim), np.float32)
        filled[:n] = rows
        queries = await self._device.buffer(filled)
        blocks = self._blocks.listed
        shape = (len(blocks), padded, k)
        pool = self._device.kernel_device.pool
        async with pool.backend.turns.turn():
            best = pool.empty(shape, "f32", "search"), pool.empty(shape, "u32", "search")
        start = 0
        for at, block in enumerate(blocks):
            await self._choose(queries, block, k, start, best, at * padded * k)
            start += block.n
        scores, places = await best[0].numpy(), await best[1].numpy()
        for buffer in (queries, *best):
            buffer.close()
        scores = scores[:, :n].swapaxes(0, 1).reshape(n, -1)
        places = places[:, :n].swapaxes(0, 1).reshape(n, -1)
        order = np.lexsort((places, -scores), axis=-1)[:, :k]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)

    async def _choose(
        self,
        queries: DeviceBuffer,
        block: Block,
        k: int,
        start: int,
        into: tuple[DeviceBuffer, DeviceBuffer],
        at: int,
    ) -> None:
        """Choose the k best rows of a block, `into` from element `at` on."""
        scores = await self._device.ops.matmul(queries, block.buffer, transposed=True)
        await self._top.choose(scores, block.n, k, start, into, at)
        scores.close()

    async def _ready(self, where: str) -> None:
        self._check_open(where)
        await need_numpy(where, _NUMPY_HINT)
        await self._device.kernel_device.ready(where)

    def _check_open(self, where: str) -> None:
        if self._closed:
            raise InputError(where, "an open index", "one that was closed")
        self._device.check_open(where)

    async def _rows(self, where: str, value: Any) -> Array:
        """Return rows as they are compared: float32, of length 1 for "cosine"."""
        read = getattr(value, "numpy", None)
        result = await read() if isinstance(value, DeviceBuffer) and read else value
        try:
            rows = np.asarray(result)
        except ValueError as error:  # rows of different lengths
            raise InputError(where, f"rows of {self.dim} numbers", str(error)) from None
        if rows.dtype.kind not in "fiu" or rows.ndim not in (1, 2) or rows.shape[-1] != self.dim:
            what = f"shape {rows.shape}, dtype {rows.dtype}"
            raise InputError(where, f"numbers of shape (n, {self.dim}) or ({self.dim},)", what)
        self._check_numbers(where, rows)
        if self._metric == "dot":
            return rows.astype(np.float32)
        wide = rows.astype(np.float64)
        lengths = np.sqrt(np.square(wide).sum(-1, keepdims=True))
        if not lengths.all():
            at = int(np.argmin(lengths))
            hint = 'It has no direction; metric="dot" accepts it.'
            raise InputError(where, "rows that are not all zeros", f"one, row {at}", hint=hint)
        return (wide / lengths).astype(np.float32)

    def _check_numbers(self, where: str, rows: Array) -> None:
        if not rows.size:
            return
        limit = _MAX_NORM / sqrt(self.dim)
        largest = float(np.abs(rows).max())
        if not largest <= limit:
            raise InputError(where, f"finite numbers up to {limit:.1e}", f"{largest}")

    def _named(self, keys: Iterable[Key] | None, n: int) -> list[Key]:
        """Return keys for n new rows."""
        if keys is None:
            named: list[Key] = []
            number = self._next
            while len(named) < n:
                if number not in self._keys:
                    named.append(number)
                number += 1
            return named
        names = listed("Index.add, keys", keys, "a list of keys")
        if len(names) != n:
            raise InputError("Index.add, keys", f"{n:,} keys, one a row", f"{len(names):,}")
        seen: set[Key] = set()
        for at, key in enumerate(names):
            if not _is_key(key):
                expected = "a string or a whole number"
                raise InputError(f"Index.add, keys[{at}]", expected, described(key))
            if key in self._keys or key in seen:
                expected = "a key that no row has"
                hint = "Remove it first: await index.remove([key])."
                raise InputError(f"Index.add, keys[{at}]", expected, described(key), hint=hint)
            seen.add(key)
        return names


_NUMPY_HINT = "Load numpy into this Pyodide first."


def _is_key(key: object) -> bool:
    if isinstance(key, bool):
        return False
    return isinstance(key, str) or (isinstance(key, int) and abs(key) <= _MAX_KEY)


def _name_of(name: object) -> str:
    if isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable():
        return name
    raise InputError("Index, name", "a name of 1 to 200 printable characters", described(name))
