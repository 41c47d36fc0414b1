"""Where a file's bytes go: chunks are cut into pieces, and float16 is widened to float32.

web/bridge/pieces.js does the same in a page, where the bytes stay in JavaScript.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bascule.backend.base import WeightStore
from bascule.base.arrays import Buffer, np
from bascule.errors import SourceError

# Dtypes that are widened to float32, with the bytes of an element in the file.
ELEMENT_NBYTES = {"F32": 4, "F16": 2, "BF16": 2}
# Copied unchanged, such as quantized blocks: buffers are written 4 bytes at a time.
RAW = "RAW"
_UNIT_NBYTES = {**ELEMENT_NBYTES, RAW: 4}


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of a file's bytes and its destination.

    `nbytes` counts the file's bytes. F16 and BF16 are widened, so `target_offset` counts bytes of
    float32; RAW bytes are copied and zero-padded to a multiple of 4.
    """

    file_offset: int
    nbytes: int
    target: int
    target_offset: int
    dtype: str = "F32"


class Scatter:
    """Writes the parts of chunks that belong to pieces.

    Chunks may arrive in any order and may split an element: its bytes wait until all are there.
    """

    def __init__(self, pieces: Sequence[Piece], store: WeightStore) -> None:
        self._pieces = pieces
        self._store = store
        self._cut: dict[tuple[int, int], tuple[bytearray, int]] = {}
        self.done = 0

    def feed(self, start: int, chunk: Buffer) -> None:
        """Process the chunk that starts at byte `start` of the file."""
        view = memoryview(chunk).cast("B")
        end = start + view.nbytes
        for index, piece in enumerate(self._pieces):
            begin = max(start, piece.file_offset)
            stop = min(end, piece.file_offset + piece.nbytes)
            if begin < stop:
                self._put(index, begin - piece.file_offset, view[begin - start : stop - start])
                self.done += stop - begin

    def _put(self, index: int, at: int, part: memoryview) -> None:
        piece = self._pieces[index]
        unit = _UNIT_NBYTES[piece.dtype]
        head = min(part.nbytes, -at % unit)
        tail = (part.nbytes - head) % unit
        if head:
            self._join(index, at, unit, part[:head])
        middle = part[head : part.nbytes - tail]
        if middle.nbytes:
            self._send(piece, at + head, middle)
        if tail:
            self._join(index, at + part.nbytes - tail, unit, part[part.nbytes - tail :])

    def _join(self, index: int, at: int, unit: int, part: memoryview) -> None:
        start = at - at % unit
        element, got = self._cut.pop((index, start), (bytearray(unit), 0))
        element[at - start : at - start + part.nbytes] = part
        got += part.nbytes
        piece = self._pieces[index]
        if got == min(unit, piece.nbytes - start):
            self._send(piece, start, memoryview(element))
        else:
            self._cut[(index, start)] = (element, got)

    def _send(self, piece: Piece, at: int, part: memoryview) -> None:
        growth = 4 // _UNIT_NBYTES[piece.dtype]
        self._store.write(
            piece.target, piece.target_offset + growth * at, _widened(part, piece.dtype)
        )


def _widened(view: memoryview, dtype: str) -> Buffer:
    if dtype in ("F32", RAW):
        return view
    if dtype == "F16":
        return np.frombuffer(view, np.float16).astype(np.float32)
    # bfloat16 is the upper half of a float32.
    return np.frombuffer(view, np.uint16).astype(np.uint32) << np.uint32(16)


def check_ends(pieces: Sequence[Piece], nbytes: int, place: str) -> None:
    """SourceError if the file has become too short for pieces that its header promised."""
    missing = max((p.file_offset + p.nbytes for p in pieces), default=0) - nbytes
    if missing > 0:
        raise SourceError(place, f"it ends {missing:,} bytes early", offset=nbytes)


def chunk_order(pieces: Sequence[Piece], chunk_nbytes: int, count: int = 0) -> list[int]:
    """Return chunks in the order of the pieces; then, up to `count`, those no piece needs."""
    order: dict[int, None] = {}
    for piece in pieces:
        last = -(-(piece.file_offset + piece.nbytes) // chunk_nbytes)
        order.update(dict.fromkeys(range(piece.file_offset // chunk_nbytes, last)))
    order.update(dict.fromkeys(range(count)))
    return list(order)


def leading(pieces: Sequence[Piece]) -> Callable[[int, int], int]:
    """Return a counter of the leading complete pieces; call it for each chunk (start, nbytes)."""
    missing = [piece.nbytes for piece in pieces]
    ready = 0

    def note(start: int, nbytes: int) -> int:
        nonlocal ready
        for index, piece in enumerate(pieces):
            begin = max(start, piece.file_offset)
            missing[index] -= max(0, min(start + nbytes, piece.file_offset + piece.nbytes) - begin)
        while ready < len(missing) and missing[ready] <= 0:
            ready += 1
        return ready

    return note
