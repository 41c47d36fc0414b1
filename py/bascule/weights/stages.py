"""Read the weights of one stage of a pass again, from a folder or the cache."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import WeightStore
from bascule.base.arrays import Buffer
from bascule.weights.pieces import Piece
from bascule.weights.plan import Planned
from bascule.weights.source import Source


class StageReader:
    """See `backend.streaming.ReadStage`: maps parameters to the bytes of the files."""

    def __init__(self, source: Source, plan: Sequence[Planned], store: WeightStore) -> None:
        self._source = source
        self._store = store
        self._plan: dict[str, list[Planned]] = {}
        for planned in plan:
            self._plan.setdefault(planned.parameter, []).append(planned)

    async def __call__(self, offsets: Mapping[str, int], target: int) -> None:
        files: dict[str, list[Piece]] = {}
        for name, offset in offsets.items():
            for planned in self._plan[name]:
                at = offset + planned.piece.target_offset
                piece = replace(planned.piece, target=target, target_offset=at)
                files.setdefault(planned.file, []).append(piece)
        for file, pieces in files.items():
            await self._source.reread(file, pieces, self._store)


class DiscardingStore:
    """A `WeightStore` that drops what is written: for a read that only verifies and caches."""

    arrivals: Arrivals | None = None
    streaming = None
    page_bridge = None
    nbytes = 0

    def __init__(self) -> None:
        self.targets: dict[str, int] = {}

    def write(self, target: int, offset: int, data: Buffer) -> None:
        """See `WeightStore.write`."""

    def close(self) -> None:
        """See `WeightStore.close`."""
