"""Load weights: read and check the headers, then stream the tensors into a weight store, in the
order in which they are needed.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import WeightStore
from bascule.base.file_kinds import SNIFFED_NBYTES, check_kind
from bascule.base.json_object import TENSOR_TABLE, json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.base.waiting import all_or_first_error
from bascule.errors import (
    FileChangedError,
    FileMissingError,
    HashMismatchError,
    ModelFileError,
)
from bascule.program.program import Parameter
from bascule.weights.names import INDEX, check_file
from bascule.weights.plan import Planned, plan_pieces
from bascule.weights.safetensors import TensorInfo, header_nbytes, parse_header
from bascule.weights.source import Source
from bascule.weights.stages import DiscardingStore, StageReader

T = TypeVar("T")

# Reads the checked tensor tables by file.
Headers = Callable[[], Awaitable[dict[str, dict[str, TensorInfo]]]]

WHOLE = "model.safetensors"
_MAX_CHANGES = 3
_MAX_SHARDS = 1000


async def load_weights(
    source: Source,
    parameters: Sequence[Parameter],
    store: WeightStore,
    *,
    progress: ProgressCallback | None = None,
    parallel: bool = False,
    headers: Headers | None = None,
) -> None:
    """Fill `store` with `parameters`, in their order, from model.safetensors or its shards.

    `headers` replaces the reading of the tensor tables (other files, or other tensor names). F16
    and BF16 become float32. `store.arrivals` is notified of each complete parameter. A file that
    changes on the server is dropped and loaded again up to three times, one with a wrong hash once.
    With `parallel` two shards are fetched at a time. Raises ModelFileError for a file that is
    unsound or lacks a tensor, UnsupportedModelError for a dtype that is not a float, SourceError if
    reading fails.
    """

    async def attempt() -> None:
        if progress is not None:
            progress(Progress("weights", 0, 0))
        tables = await (headers or partial(read_headers, source))()
        plan = plan_pieces(tables, parameters, store.targets, source.location)
        await fill(source, plan, store, progress, parallel)

    async def start_over(file: str) -> None:
        mark_missing(store, parameters)
        await source.forget(file)

    await with_restarts(source, attempt, start_over)


async def with_restarts(
    source: Source,
    attempt: Callable[[], Awaitable[T]],
    start_over: Callable[[str], Awaitable[None]],
) -> T:
    """Retry if a file changes on the server (three times) or has a wrong hash (once).

    `start_over` must forget the file whose name it gets.
    """
    changes = mismatches = 0
    while True:
        try:
            return await attempt()
        except FileChangedError as error:
            changes += 1
            if changes > _MAX_CHANGES:
                raise
            file = error.location.removeprefix(source.location + "/")
        except HashMismatchError as error:
            mismatches += 1
            if mismatches > 1:
                raise
            file = error.file.removeprefix(source.location + "/")
            warnings.warn(f"{error.what} It is loaded again, once.", stacklevel=3)
        await start_over(check_file(file))


def mark_missing(store: WeightStore, parameters: Sequence[Parameter]) -> None:
    """Mark these parameters as missing again."""
    if store.arrivals is not None:
        store.arrivals.restart(parameter.name for parameter in parameters)


async def fill(
    source: Source,
    plan: Sequence[Planned],
    store: WeightStore,
    progress: ProgressCallback | None,
    parallel: bool = False,
    whole: Callable[[Planned], None] | None = None,
) -> None:
    """Stream the planned pieces into the store, file by file; with `parallel` two at a time.

    `whole` is called with each complete piece before anything else is written. Weights that a store
    streams are read once here, to verify and cache them, and written nowhere.
    """
    arrived = _Arrived(plan, store.arrivals, progress, whole)
    if store.streaming is not None:
        store.streaming.read_by(StageReader(source, plan, store))
        store = DiscardingStore()
    gate = asyncio.Semaphore(2 if parallel else 1)

    async def load_file(file: str) -> None:
        mine = [planned for planned in plan if planned.file == file]
        async with gate:
            report = partial(arrived.note, file, mine)
            report(0, 0)
            await source.stream(file, [planned.piece for planned in mine], store, report)

    jobs = [load_file(file) for file in dict.fromkeys(planned.file for planned in plan)]
    await all_or_first_error(jobs)


class _Arrived:
    """Counts the bytes that have arrived, over all files of a model."""

    def __init__(
        self,
        plan: Sequence[Planned],
        arrivals: Arrivals | None,
        progress: ProgressCallback | None,
        whole: Callable[[Planned], None] | None,
    ) -> None:
        self._arrivals = arrivals
        self._arrived = whole
        self._progress = progress
        self._total = sum(planned.piece.nbytes for planned in plan)
        self._done: dict[str, int] = {}
        self._ready: dict[str, int] = {}
        self._n_missing = Counter(planned.parameter for planned in plan)

    def note(self, file: str, mine: Sequence[Planned], done: int, ready: int) -> None:
        """Record `done` bytes of a file's pieces, the first `ready` of them complete."""
        for planned in mine[self._ready.get(file, 0) : ready]:
            if self._arrived is not None:
                self._arrived(planned)
            self._n_missing[planned.parameter] -= 1
            if self._arrivals is not None and not self._n_missing[planned.parameter]:
                self._arrivals.mark([planned.parameter])
        self._ready[file] = max(ready, self._ready.get(file, 0))
        self._done[file] = done
        if self._progress is not None:
            self._progress(Progress("weights", sum(self._done.values()), self._total))


async def read_headers(source: Source) -> dict[str, dict[str, TensorInfo]]:
    """Return the checked tables of all files of a model: one file, or the shards in its index."""
    try:
        return {WHOLE: await read_header(source, WHOLE)}
    except FileMissingError as missing:
        try:
            index = await source.read(INDEX)
        except FileMissingError:
            raise missing from None
    place = f"{source.location}/{INDEX}"
    shards = shards_of(index, place)
    headers = {file: await read_header(source, file) for file in sorted(set(shards.values()))}
    for name, file in shards.items():
        if name not in headers[file]:
            raise ModelFileError(place, f"it says that {file} has {name[:80]!r}, and it has not")
    return headers


def shards_of(index: bytes, place: str) -> dict[str, str]:
    """Parse an index file (transformers' "weight_map") into tensor name to shard.

    ModelFileError for anything unsound, invalid file names above all.
    """
    result = json_object(index, place, TENSOR_TABLE).get("weight_map")
    if not isinstance(result, dict) or not result:
        raise ModelFileError(place, "it has no weight_map")
    for name, file in result.items():
        if not isinstance(file, str) or not file.startswith("model-") or "/" in file:
            raise ModelFileError(place, f"the file of {name[:80]!r} is not a shard's name")
        check_file(file)
    if len(set(result.values())) > _MAX_SHARDS:
        raise ModelFileError(place, f"it names more than {_MAX_SHARDS} shards")
    return result


async def read_header(source: Source, file: str) -> dict[str, TensorInfo]:
    """Read and check a file's tensor table in two small reads."""
    place = f"{source.location}/{file}"
    nbytes = await source.size(file)
    head = await source.read(file, 0, min(nbytes, SNIFFED_NBYTES))
    check_kind(head, place)
    if nbytes < 8:
        raise ModelFileError(place, f"it has {nbytes} bytes, too few for a header")
    length = header_nbytes(head[:8], nbytes, place)
    return parse_header(await source.read(file, 8, length), nbytes, place)
