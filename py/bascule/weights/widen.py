"""From a file's bytes to float32 in a weight store, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from bascule.backend.base import WeightStore

if TYPE_CHECKING:
    from typing_extensions import Buffer

ELEMENT_NBYTES = {"F32": 4, "F16": 2, "BF16": 2}


class _Piece(Protocol):
    @property
    def target(self) -> int: ...
    @property
    def target_offset(self) -> int: ...
    @property
    def dtype(self) -> str: ...


class Writer:
    """Writes one piece. Chunks may be cut anywhere; an element's first bytes wait for its last."""

    def __init__(self, store: WeightStore, piece: _Piece) -> None:
        self._store = store
        self._target = piece.target
        self._offset = piece.target_offset
        self._dtype = piece.dtype
        self._rest = b""

    def feed(self, chunk: Buffer) -> None:
        """Take the piece's next bytes."""
        view = memoryview(chunk)
        if self._rest:
            view = memoryview(self._rest + bytes(view))
        whole = view.nbytes - view.nbytes % ELEMENT_NBYTES[self._dtype]
        self._rest = bytes(view[whole:])
        if whole:
            wide = _widened(view[:whole], self._dtype)
            self._store.write(self._target, self._offset, wide)
            self._offset += memoryview(wide).nbytes


def _widened(view: memoryview, dtype: str) -> Buffer:
    if dtype == "F32":
        return view
    if dtype == "F16":
        return np.frombuffer(view, np.float16).astype(np.float32)
    # bfloat16 is the upper half of a float32.
    return np.frombuffer(view, np.uint16).astype(np.uint32) << np.uint32(16)
