"""Every block format against the gguf package's own dequantization, number by number."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import quants

from bascule.errors import InputError
from bascule.program.blocks import BLOCKS, BlockType, dequantize

N_BLOCKS = 64
# Where each quantized format keeps its float16 scales.
SCALES_AT = {
    BlockType.Q4_0: [0],
    BlockType.Q4_1: [0, 2],
    BlockType.Q8_0: [0],
    BlockType.Q4_K: [0, 2],
    BlockType.Q5_K: [0, 2],
    BlockType.Q6_K: [208],
}
EXTREMES = np.array(
    [0, -0.0, np.inf, -np.inf, np.nan, 65504, -65504, 2**-24, -(2**-24), 2**-14, 1], "<f2"
)
every_type = pytest.mark.parametrize("type", list(BlockType), ids=lambda t: t.name)


def reference(type: BlockType, data: np.ndarray) -> np.ndarray:
    # Plain arithmetic on random bytes meets NaN and infinity on purpose.
    with np.errstate(all="ignore"):
        return quants.dequantize(data.reshape(1, -1), gguf.GGMLQuantizationType[type.name]).reshape(
            -1
        )


def check(type: BlockType, data: np.ndarray) -> np.ndarray:
    """Equal bit by bit, zeros' signs included; NaN where NaN stands, whatever its payload."""
    count = data.size // BLOCKS[type].nbytes * BLOCKS[type].n_elements
    result, wanted = dequantize(type, data.tobytes(), count), reference(type, data)
    assert result.dtype == np.float32
    assert result.shape == wanted.shape == (count,)
    nan = np.isnan(wanted)
    np.testing.assert_array_equal(np.isnan(result), nan)
    np.testing.assert_array_equal(result[~nan].view(np.uint32), wanted[~nan].view(np.uint32))
    return result


def test_the_table_is_the_one_of_the_format() -> None:
    assert BLOCKS.keys() == set(BlockType)
    for type, block in BLOCKS.items():
        kind = gguf.GGMLQuantizationType[type.name]
        assert type == kind
        assert (block.n_elements, block.nbytes) == gguf.GGML_QUANT_SIZES[kind]


@every_type
@pytest.mark.parametrize("seed", range(8))
def test_random_blocks(type: BlockType, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, N_BLOCKS * BLOCKS[type].nbytes, np.uint8)
    result = check(type, data)
    assert np.isfinite(result).any()


@pytest.mark.parametrize("type", SCALES_AT, ids=lambda t: t.name)
@pytest.mark.parametrize("last", EXTREMES, ids=str)
def test_extreme_scales(type: BlockType, last: np.float16) -> None:
    """The first scale runs through all extremes, the last one (if there are two) is `last`."""
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, (len(EXTREMES), BLOCKS[type].nbytes), np.uint8)
    for at, scales in zip(SCALES_AT[type], [EXTREMES, np.full_like(EXTREMES, last)], strict=False):
        data[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    result = check(type, data.reshape(-1)).reshape(len(EXTREMES), -1)
    assert np.isnan(result[4]).all()
    assert not np.isfinite(result[2:4]).any()


@pytest.mark.parametrize("type", [BlockType.F16, BlockType.BF16], ids=lambda t: t.name)
def test_all_numbers_of_two_bytes(type: BlockType) -> None:
    check(type, np.arange(1 << 16, dtype="<u2").view(np.uint8))


@pytest.mark.parametrize(
    ("type", "step"),
    [(BlockType.Q4_0, 1 / 8), (BlockType.Q4_1, 1 / 15), (BlockType.Q8_0, 1 / 127)],
    ids=lambda v: getattr(v, "name", ""),
)
def test_what_the_package_quantized_comes_back_within_a_step(type: BlockType, step: float) -> None:
    rows = np.random.default_rng(5).uniform(-1, 1, (4, 256)).astype(np.float32)
    data = quants.quantize(rows, gguf.GGMLQuantizationType[type.name])
    result = check(type, data.reshape(-1)).reshape(rows.shape)
    span = 2 if type is BlockType.Q4_1 else 1
    assert np.abs(result - rows).max() <= 1.01 * step * span


@every_type
def test_bytes_of_any_kind_are_taken_and_left_alone(type: BlockType) -> None:
    block = BLOCKS[type]
    data = bytearray(np.random.default_rng(1).bytes(block.nbytes))
    before = bytes(data)
    result = dequantize(type, data, block.n_elements)
    for other in (before, memoryview(before), np.frombuffer(before, np.uint8)):
        np.testing.assert_array_equal(dequantize(type, other, block.n_elements), result)
    result[:] = 0
    assert data == before


@every_type
def test_no_blocks_are_no_numbers(type: BlockType) -> None:
    assert dequantize(type, b"", 0).shape == (0,)


@every_type
@pytest.mark.parametrize("surplus", [-1, 1])
def test_data_of_another_length_is_refused(type: BlockType, surplus: int) -> None:
    block = BLOCKS[type]
    with pytest.raises(InputError, match=rf"data: expected {block.nbytes} bytes .* {type.name}"):
        dequantize(type, bytes(block.nbytes + surplus), block.n_elements)


@pytest.mark.parametrize(("type", "count"), [(BlockType.Q4_0, 33), (BlockType.Q6_K, 32)])
def test_a_part_of_a_block_is_refused(type: BlockType, count: int) -> None:
    with pytest.raises(InputError, match=rf"multiple of {BLOCKS[type].n_elements} .* {count}"):
        dequantize(type, bytes(BLOCKS[type].nbytes), count)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(InputError, match="found -32"):
        dequantize(BlockType.Q4_0, b"", -32)
