"""The GGUF header parser against the format's own package, known attacks and fuzzing."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from bascule.errors import ModelFileError
from bascule.program.blocks import BLOCKS, BlockType, dequantize
from bascule.weights.gguf import (
    FIRST_READ_NBYTES,
    GgufHeader,
    GgufTensor,
    NeedMore,
    parse_gguf,
    read_gguf_header,
)
from bascule.weights.gguf_reader import MAX_HEADER_NBYTES
from tests.weights.gguf_files import (
    ARRAY,
    STRING,
    array,
    gguf_file,
    key,
    parse,
    sound_file,
    string,
    tensor,
)

SOUND = sound_file()
HUGE = 1 << 40  # a file of that size, of which only the first bytes are at hand


# Sound files


def test_a_file_of_all_kinds_of_values_and_tensors() -> None:
    header = parse(SOUND)
    assert (header.version, header.alignment) == (3, 64)
    result = header.metadata
    assert [result[k] for k in result if k.startswith("n.")] == [
        255, -1, 65534, -2, 2**32 - 1, -3, 0.5, 2**64 - 1, -(2**63), 1e300,
    ]  # fmt: skip
    assert result["yes"] is True
    assert result["no"] is False
    assert result["empty"] == ""
    assert result["tokens"] == ("a", "ü€🙂", "")
    assert tuple(result["scores"]) == (0, -1.5, 2)
    assert result["flags"] == (True, False, True)
    assert tuple(result["none"]) == ()
    assert [tuple(inner) for inner in result["nested"]] == [(1, 2), ()]
    start = header.data_start
    assert start % 64 == 0
    assert dict(header.tensors) == {
        "token_embd.weight": GgufTensor("token_embd.weight", BlockType.Q4_1, (3, 64), start, 120),
        "blk.0.bias": GgufTensor("blk.0.bias", BlockType.F32, (5,), start + 128, 20),
        "cube": GgufTensor("cube", BlockType.F16, (1, 4, 3, 2), start + 192, 48),
    }


def test_a_file_of_nothing() -> None:
    header = parse(gguf_file([], []))
    assert (header.alignment, dict(header.metadata), dict(header.tensors)) == (32, {}, {})


def write(
    path: Path,
    arrays: dict[str, tuple[BlockType, np.ndarray]],
    alignment: int | None = None,
    endianess: gguf.GGUFEndian = gguf.GGUFEndian.LITTLE,
) -> bytes:
    """A file by the gguf package: rows of bytes for block types, numbers for F32 and F16."""
    writer = gguf.GGUFWriter(path, "llama", endianess=endianess)
    if alignment is not None:
        writer.add_custom_alignment(alignment)
    writer.add_context_length(2048)
    writer.add_string("long", "x" * 70_000)
    writer.add_bool("flag", True)
    writer.add_token_list([f"token {i} ü" for i in range(1000)])
    writer.add_token_scores([i / 2 for i in range(1000)])
    writer.add_array("nested", [[1, 2], [3]])
    for name, (type, values) in arrays.items():
        raw = None if values.dtype != np.uint8 else gguf.GGMLQuantizationType[type.name]
        writer.add_tensor(name, values, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def arrays_of_all_types() -> dict[str, tuple[BlockType, np.ndarray]]:
    rng = np.random.default_rng(7)
    arrays: dict[str, tuple[BlockType, np.ndarray]] = {
        "f32": (BlockType.F32, rng.normal(size=(2, 3, 5)).astype(np.float32)),
        "f16": (BlockType.F16, rng.normal(size=(7,)).astype(np.float16)),
    }
    for type, block in BLOCKS.items():
        if type not in (BlockType.F32, BlockType.F16):
            rows = rng.integers(0, 120, (3, 2 * block.nbytes), np.uint8)
            arrays[type.name] = (type, rows)
    return arrays


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("alignment", [None, 8, 4096])
def test_files_of_the_gguf_package_read_back(
    tmp_path: Path, version: int, alignment: int | None
) -> None:
    arrays = arrays_of_all_types()
    data = write(tmp_path / "m.gguf", arrays, alignment)
    # The two versions differ in nothing else (3 only allows for big-endian files).
    data = data[:4] + struct.pack("<I", version) + data[8:]
    header = parse(data)
    assert (header.version, header.alignment) == (version, alignment or 32)
    result = header.metadata
    assert result["general.architecture"] == "llama"
    assert result["llama.context_length"] == 2048
    assert result["long"] == "x" * 70_000
    assert result["flag"] is True
    assert result["tokenizer.ggml.tokens"] == tuple(f"token {i} ü" for i in range(1000))
    assert list(result["tokenizer.ggml.scores"]) == [i / 2 for i in range(1000)]
    assert [list(inner) for inner in result["nested"]] == [[1, 2], [3]]
    assert list(header.tensors) == list(arrays)
    for name, (type, values) in arrays.items():
        info = header.tensors[name]
        assert info.type is type
        assert data[info.start : info.start + info.nbytes] == values.tobytes()
        block = BLOCKS[type]
        blocks = (3, values.shape[-1] // block.nbytes * block.n_elements)
        assert info.shape == (blocks if values.dtype == np.uint8 else values.shape)


def test_the_gguf_package_sees_the_same_tensors(tmp_path: Path) -> None:
    """Its reader and ours: the same places, and the same numbers there."""
    data = write(tmp_path / "m.gguf", arrays_of_all_types())
    header = parse(data)
    theirs = gguf.GGUFReader(tmp_path / "m.gguf").tensors
    assert [t.name for t in theirs] == list(header.tensors)
    for their in theirs:
        info = header.tensors[their.name]
        assert (info.start, info.nbytes) == (their.data_offset, their.n_bytes)
        assert info.shape == tuple(reversed(their.shape.tolist()))
        ours = dequantize(info.type, data[info.start :][: info.nbytes], their.n_elements)
        wanted = gguf.quants.dequantize(their.data, their.tensor_type)
        np.testing.assert_array_equal(ours.reshape(info.shape), wanted.reshape(info.shape))


def test_big_endian_files_of_the_gguf_package_are_refused_by_name(tmp_path: Path) -> None:
    data = write(tmp_path / "m.gguf", {}, endianess=gguf.GGUFEndian.BIG)
    with pytest.raises(ModelFileError, match="a big-endian one of version 3"):
        parse(data)


# Headers that come in ranges


def test_every_first_part_asks_for_more_and_leads_to_the_same_header() -> None:
    whole = parse(SOUND)
    lengths = range(len(SOUND))
    results = [parse_gguf(SOUND[:n], len(SOUND), "f.gguf") for n in lengths]
    for n, part in zip(lengths, results, strict=True):
        if isinstance(part, NeedMore):
            assert min(2 * n, len(SOUND)) <= part.nbytes <= len(SOUND)
            assert part.nbytes > n
        else:
            assert part == whole
    # The weights themselves are not needed.
    assert isinstance(results[whole.data_start], GgufHeader)
    assert sum(isinstance(part, NeedMore) for part in results) > 500


class Ranges:
    """A file read by ranges, each of which is remembered."""

    def __init__(self, data: bytes, file_nbytes: int | None = None) -> None:
        self.data = data
        self.file_nbytes = len(data) if file_nbytes is None else file_nbytes
        self.asked: list[tuple[int, int]] = []

    async def read(self, offset: int, nbytes: int) -> bytes:
        self.asked.append((offset, nbytes))
        assert offset + nbytes <= self.file_nbytes
        return self.data[offset : offset + nbytes]

    async def header(self) -> GgufHeader:
        return await read_gguf_header(self.read, self.file_nbytes, "f.gguf")


async def test_a_small_file_is_read_at_once() -> None:
    ranges = Ranges(SOUND)
    assert await ranges.header() == parse(SOUND)
    assert ranges.asked == [(0, len(SOUND))]


async def test_a_long_header_is_read_in_growing_ranges_each_byte_once() -> None:
    words = [string(f"word {i}") for i in range(400_000)]
    data = gguf_file(
        [key("words", ARRAY, array(STRING, words))], [tensor("a", [8])], bytes(1 << 22)
    )
    ranges = Ranges(data)
    assert await ranges.header() == parse(data)
    ends = [offset + nbytes for offset, nbytes in ranges.asked]
    assert [offset for offset, _ in ranges.asked] == [0, *ends[:-1]]
    assert ends[0] == FIRST_READ_NBYTES
    assert len(ends) == 3
    assert ends[-1] < len(data)


async def test_a_source_that_ends_early_is_refused() -> None:
    with pytest.raises(ModelFileError, match=r"file: expected .* bytes, found 100"):
        await Ranges(SOUND[:100], len(SOUND)).header()


async def test_a_header_past_the_limit_is_refused_after_one_read() -> None:
    data = gguf_file([key("k", STRING, string("", MAX_HEADER_NBYTES))], [], bytes(1 << 22))
    ranges = Ranges(data, HUGE)
    with pytest.raises(ModelFileError, match=r"header of at most 67,108,864 bytes, found at least"):
        await ranges.header()
    assert len(ranges.asked) == 1
