"""The dtypes of tensors and the block formats of weights, without numpy.

A quantized tensor is a sequence of equal blocks, each with its own scale; `program/blocks.py` has
their layouts.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import Literal

# The dtypes that programs compute with, and those of stored weights and KV caches.
DType = Literal["f32", "u32", "i32", "f16", "bf16", "q4_0", "q4_1", "q8_0", "q4_k", "q5_k", "q6_k"]


class BlockType(IntEnum):
    """A tensor type that Bascule reads; the value is its number in GGUF files."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q8_0 = 8
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    BF16 = 30


@dataclass(frozen=True, slots=True)
class Block:
    """The smallest part of a tensor that can be read separately."""

    n_elements: int
    nbytes: int


BLOCKS: Mapping[BlockType, Block] = MappingProxyType(
    {
        BlockType.F32: Block(1, 4),
        BlockType.F16: Block(1, 2),
        BlockType.BF16: Block(1, 2),
        BlockType.Q4_0: Block(32, 18),
        BlockType.Q4_1: Block(32, 20),
        BlockType.Q8_0: Block(32, 34),
        BlockType.Q4_K: Block(256, 144),
        BlockType.Q5_K: Block(256, 176),
        BlockType.Q6_K: Block(256, 210),
    }
)

# Types of ggml, past and present, that Bascule does not read; for error messages.
UNREAD_TYPES: Mapping[int, str] = MappingProxyType(
    {
        4: "Q4_2", 5: "Q4_3", 6: "Q5_0", 7: "Q5_1", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K",
        16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
        22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
        29: "IQ1_M", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 34: "TQ1_0", 35: "TQ2_0",
        39: "MXFP4",
    }
)  # fmt: skip


def block_of(dtype: DType) -> Block:
    """Return the block of a tensor type."""
    return Block(1, 4) if dtype in ("u32", "i32") else BLOCKS[BlockType[dtype.upper()]]


def nbytes_of(dtype: DType, n_elements: int) -> int:
    """Return the bytes of that many elements, padded to the 4 bytes in which buffers are sized."""
    block = block_of(dtype)
    return (n_elements // block.n_elements * block.nbytes + 3) & ~3


def dtype_of(type: BlockType) -> DType:
    """Return the program dtype of a file's tensor type."""
    return _DTYPES[type]


_DTYPES: Mapping[BlockType, DType] = MappingProxyType(
    {
        BlockType.F32: "f32",
        BlockType.F16: "f16",
        BlockType.BF16: "bf16",
        BlockType.Q4_0: "q4_0",
        BlockType.Q4_1: "q4_1",
        BlockType.Q8_0: "q8_0",
        BlockType.Q4_K: "q4_k",
        BlockType.Q5_K: "q5_k",
        BlockType.Q6_K: "q6_k",
    }
)


def rounded_to(dtype: DType, value: float) -> float:
    """Round to the nearest value of `dtype` if it is f16 or bf16; otherwise return the value."""
    if dtype == "f16":
        return struct.unpack("<e", struct.pack("<e", value))[0]
    if dtype == "bf16":
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
        bits += 0x7FFF + (bits >> 16 & 1)  # to the even one of two that are as near
        return struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]
    return value
