"""Build a tape: see `gpu.py` for its words."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from bascule.errors import GpuError

# A binding: index, buffer, offset in bytes, size in bytes.
Binding = tuple[int, int, int, int]


class TapeBuilder:
    """Collects dispatches; equal bind groups are made once."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, ...], int] = {}
        self._dispatches: list[int] = []

    def dispatch(
        self, pipeline: int, bindings: Sequence[Binding], workgroups: tuple[int, int, int]
    ) -> None:
        """Add one dispatch."""
        flat = [pipeline, len(bindings)]
        for index, buffer, offset, nbytes in bindings:
            if offset % 4 or nbytes % 4:
                raise GpuError("record", f"binding {index} is not aligned to 4 bytes.")
            flat += (index, buffer, offset // 4, nbytes // 4)
        group = self._groups.setdefault(tuple(flat), len(self._groups))
        self._dispatches += (pipeline, group, *workgroups)

    def words(self) -> array[int]:
        """The finished tape."""
        words = array("i", [len(self._groups), len(self._dispatches) // 5])
        for group in self._groups:
            words.extend(group)
        words.extend(self._dispatches)
        return words
