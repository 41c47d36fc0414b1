"""Dequantize weights: each format's layout, and how its numbers become float32.

Layouts: ggml's documented block structures (https://github.com/ggml-org/ggml). All numbers are
little-endian; `d` is a block's scale as float16, `q` a small integer. Elements are counted along a
row. The arithmetic is float32 in ggml's order, so the results are equal bit by bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bascule.base.arrays import Bytes, Floats, NDArray, np
from bascule.base.dtypes import BLOCKS, Block, BlockType, DType, dtype_of
from bascule.errors import InputError

__all__ = ["BLOCKS", "Block", "BlockMatrix", "BlockType", "dequantize"]

# Rows are dequantized in tiles of about this many numbers, small beside any weight.
_TILE_ELEMENTS = 1 << 18


def dequantize(type: BlockType, data: bytes | bytearray | memoryview | Bytes, count: int) -> Floats:
    """Return the `count` numbers in `data` as a new float32 array (count,).

    A scale that is NaN or infinite propagates silently, as in IEEE arithmetic. Takes about three
    times the result's bytes while it runs: pass large tensors row by row. InputError if `count` is
    not a whole number of blocks or `data` has another length.
    """
    block = BLOCKS[type]
    if count < 0 or count % block.n_elements:
        expected = f"a multiple of {block.n_elements} from 0 for {type.name}"
        raise InputError("dequantize: count", expected, f"{count}")
    raw = np.frombuffer(data, np.uint8)
    nbytes = count // block.n_elements * block.nbytes
    if raw.size != nbytes:
        expected = f"{nbytes:,} bytes for {count:,} numbers of {type.name}"
        raise InputError("dequantize: data", expected, f"{raw.size:,}")
    with np.errstate(invalid="ignore"):
        return _READERS[type](raw.reshape(-1, block.nbytes)).reshape(-1)


@dataclass(frozen=True, slots=True)
class BlockMatrix:
    """A matrix (N, K) that stays in blocks; `data` are their bytes as uint8 (n,)."""

    type: BlockType
    shape: tuple[int, int]
    data: Bytes

    @property
    def dtype(self) -> DType:
        """The name of its type."""
        return dtype_of(self.type)

    def rows(self, start: int, stop: int) -> Floats:
        """Return those rows as float32 (stop - start, K)."""
        block, inner = BLOCKS[self.type], self.shape[1]
        row_nbytes = inner // block.n_elements * block.nbytes
        raw = self.data[start * row_nbytes : stop * row_nbytes]
        return dequantize(self.type, raw, (stop - start) * inner).reshape(-1, inner)

    def take(self, indices: NDArray[Any]) -> Floats:
        """Return rows by index as float32 (*indices.shape, K)."""
        results = [self.rows(int(i), int(i) + 1) for i in indices.ravel()]
        return np.concatenate(results).reshape(*indices.shape, self.shape[1])

    def tiles(self) -> Iterator[tuple[int, Floats]]:
        """Yield tiles of rows, each with the index of its first row."""
        step = max(1, _TILE_ELEMENTS // self.shape[1])
        for start in range(0, self.shape[0], step):
            yield start, self.rows(start, min(start + step, self.shape[0]))


def _half(blocks: Bytes, at: int) -> Floats:
    """Return the float16 at byte `at` of each block, as float32 (blocks, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """Unpack (..., n) bytes -> (..., 2, n): all low nibbles, then all high nibbles."""
    return np.stack((packed & np.uint8(15), packed >> np.uint8(4)), axis=-2)


def _f32(blocks: Bytes) -> Floats:
    """One float32."""
    return blocks.view("<f4").astype(np.float32)


def _f16(blocks: Bytes) -> Floats:
    """One float16."""
    return blocks.view("<f2").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    """One bfloat16: the upper half of a float32."""
    return (blocks.view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    """32 numbers d * (q - 8).

    byte 0   d
         2   16 bytes; byte i holds q of element i (low nibble) and of element i + 16 (high nibble)
    """
    q = _nibbles(blocks[:, 2:]).reshape(-1, 32).view(np.int8) - np.int8(8)
    return _half(blocks, 0) * q.astype(np.float32)


def _q4_1(blocks: Bytes) -> Floats:
    """32 numbers d * q + m.

    byte 0   d
         2   m, the block's least number, as float16
         4   16 bytes of q, paired as in Q4_0
    """
    q = _nibbles(blocks[:, 4:]).reshape(-1, 32).astype(np.float32)
    return _half(blocks, 0) * q + _half(blocks, 2)


def _q8_0(blocks: Bytes) -> Floats:
    """32 numbers d * q.

    byte 0   d
         2   q of elements 0..31 as int8
    """
    return _half(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _scales_and_mins(blocks: Bytes) -> tuple[Floats, Floats]:
    """Both K formats' scale d * s and offset dmin * m of each run of 32, as (blocks, 8, 1).

    byte 0   d
         2   dmin as float16
         4   12 bytes that pack s and m of runs 0..7, 6 bits each:
             bytes 0..3   s of runs 0..3; the top 2 bits are the top 2 bits of s of runs 4..7
             bytes 4..7   m of runs 0..3; the top 2 bits are the top 2 bits of m of runs 4..7
             bytes 8..11  runs 4..7: the low 4 bits of s (low nibble) and of m (high nibble)
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    s = np.concatenate((first & 63, (third & 15) | ((first >> 6) << 4)), axis=1)
    m = np.concatenate((second & 63, (third >> 4) | ((second >> 6) << 4)), axis=1)
    scale = _half(blocks, 0) * s.astype(np.float32)
    offset = _half(blocks, 2) * m.astype(np.float32)
    return scale[:, :, None], offset[:, :, None]


def _q4_k(blocks: Bytes) -> Floats:
    """256 numbers in 8 runs of 32: d * s * q - dmin * m.

    byte 0   d, dmin and the packed s and m
         16  4 times 32 bytes; byte i of group g holds q of element i of run 2g (low nibble) and
             of run 2g + 1 (high nibble)
    """
    scale, offset = _scales_and_mins(blocks)
    q = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return scale * q.astype(np.float32) - offset


def _q5_k(blocks: Bytes) -> Floats:
    """256 numbers in 8 runs of 32: d * s * q - dmin * m.

    byte 0   d, dmin and the packed s and m
         16  32 bytes; bit r of byte i is the fifth bit of q of element i of run r
         48  the lower four bits of q, paired as in Q4_K
    """
    scale, offset = _scales_and_mins(blocks)
    low = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    runs = np.arange(8, dtype=np.uint8)[:, None]
    fifth = (blocks[:, None, 16:48] >> runs) & 1
    return scale * (low | (fifth << 4)).astype(np.float32) - offset


def _q6_k(blocks: Bytes) -> Floats:
    """256 numbers in 16 runs of 16: d * s * (q - 32).

    byte 0    2 times 64 bytes, one group for each 128 elements: byte i holds the lower four bits
              of q of element i (low nibble) and of element i + 64 (high nibble)
         128  2 times 32 bytes: bits 2k and 2k + 1 of byte i are the upper two bits of q of element
              i + 32k of the group
         192  s of runs 0..15 as int8
         208  d
    """
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    high = (blocks[:, 128:192].reshape(-1, 2, 1, 32) >> shifts) & 3
    q = (low | (high << 4)).view(np.int8) - np.int8(32)
    scale = _half(blocks, 208) * blocks[:, 192:208].view(np.int8).astype(np.float32)
    return scale[:, :, None] * q.reshape(-1, 16, 16).astype(np.float32)


_READERS: dict[BlockType, Callable[[Bytes], Floats]] = {
    BlockType.F32: _f32,
    BlockType.F16: _f16,
    BlockType.BF16: _bf16,
    BlockType.Q4_0: _q4_0,
    BlockType.Q4_1: _q4_1,
    BlockType.Q8_0: _q8_0,
    BlockType.Q4_K: _q4_k,
    BlockType.Q5_K: _q5_k,
    BlockType.Q6_K: _q6_k,
}
