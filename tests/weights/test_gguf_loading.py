"""GGUF files from a folder into memory, byte by byte, and those that do not fit or are cut.

test_gguf_network.py does the same with servers.
"""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from bascule.backend.arrivals import Arrivals
from bascule.backend.host_arrays import ReferenceStore
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.base.dtypes import dtype_of
from bascule.base.folders import models_folder
from bascule.errors import (
    BasculeError,
    FileMissingError,
    ModelFileError,
    SourceError,
    UnsupportedModelError,
)
from bascule.program.program import Parameter
from bascule.tasks.registry import known_hashes
from bascule.weights.gguf_stream import find_gguf, load_gguf_weights, read_gguf
from bascule.weights.pieces import RAW, Piece, Scatter
from bascule.weights.source import FileSource
from tests.weights.gguf_files import STRING, U16, key, string
from tests.weights.gguf_models import (
    CHUNK,
    FILE,
    PARAMETERS,
    assert_is,
    expected,
    gguf_bytes,
    load,
    memory,
    poisoned,
)

WHOLE = gguf_bytes(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / FILE).write_bytes(WHOLE)
    return tmp_path


# What is loaded


@pytest.mark.parametrize("chunk_nbytes", [1024, 4097, CHUNK, 4 << 20])
async def test_a_folder_loads_byte_by_byte(folder: Path, chunk_nbytes: int) -> None:
    messages: list[int] = []
    source = FileSource(folder, chunk_nbytes=chunk_nbytes)
    assert_is(await load(source, on_bytes=messages.append), 1)
    assert messages == sorted(messages)
    read = {t.tensors for t in PARAMETERS}
    assert len(read) < len(PARAMETERS)  # one tensor is read twice, widened and as it is
    sizes = {t.name: t.nbytes for t in (await read_gguf(source, FILE)).tensors.values()}
    assert messages[-1] == sum(sizes[name] for p in PARAMETERS for name in p.tensors)


async def test_a_gpu_holds_the_files_bytes(folder: Path, gpu: NativeGpu) -> None:
    store = WebGpuBackend(gpu).store(PARAMETERS)
    source = FileSource(folder, chunk_nbytes=4097)
    await load_gguf_weights(source, FILE, await read_gguf(source, FILE), PARAMETERS, store)
    for name, wanted in expected(1).items():
        result = bytearray(len(wanted))
        await gpu.read(store.targets[name], 0, result)
        assert result == wanted, name
    store.close()


async def test_the_known_model_loads_byte_by_byte() -> None:
    """A q8_0 embedding of 30 MB, 210 matrices of q4_1, and norms of f32."""
    path = models_folder() / "SmolLM2-135M-Instruct"
    source = FileSource(path, known_hashes("SmolLM2-135M-Instruct"))
    header = await read_gguf(source)
    tensors = header.tensors.values()
    parameters = [Parameter(t.name, t.shape, (t.name,), dtype=dtype_of(t.type)) for t in tensors]
    store = ReferenceStore(parameters)
    await load_gguf_weights(source, FILE, header, parameters, store)
    whole = np.memmap(path / FILE, np.uint8)
    for t in tensors:
        result = memory(store, t.name)[: t.nbytes]
        assert np.array_equal(result, whole[t.start : t.start + t.nbytes]), t.name


async def test_parameters_arrive_in_their_order(folder: Path) -> None:
    class Noted(Arrivals):
        order: list[str] = []  # noqa: RUF012

        def mark(self, names: object) -> None:
            assert isinstance(names, list)
            self.order += names

    store = poisoned()
    store.arrivals = Noted(p.name for p in PARAMETERS)
    source = FileSource(folder, chunk_nbytes=1024)
    await load_gguf_weights(source, FILE, await read_gguf(source), PARAMETERS, store)
    assert Noted.order == [p.name for p in PARAMETERS]


def test_raw_bytes_arrive_however_chunks_cut_them(rng: np.random.Generator) -> None:
    """Chunks of any size in any order, and pieces that end anywhere."""
    for _ in range(50):
        sizes = [int(n) for n in rng.integers(1, 40, 4)]
        starts = np.cumsum([3, *sizes[:-1]])
        data = rng.bytes(3 + sum(sizes) + 5)
        parameters = [Parameter(f"p{i}", (10,), (f"p{i}",)) for i in range(4)]
        store = ReferenceStore(parameters)
        for array in store.arrays.values():
            array.view(np.uint8).fill(0xEE)
        pieces = [
            Piece(int(a), n, i, 0, RAW) for i, (a, n) in enumerate(zip(starts, sizes, strict=True))
        ]
        scatter, chunk = Scatter(pieces, store), int(rng.integers(1, 12))
        for at in rng.permutation(range(0, len(data), chunk)):
            scatter.feed(int(at), data[at : at + chunk])
        for index, (a, n) in enumerate(zip(starts, sizes, strict=True)):
            wanted = data[a : a + n] + bytes(-n % 4)
            assert memory(store, f"p{index}").tobytes() == wanted + b"\xee" * (40 - len(wanted))
        assert scatter.done == sum(sizes)


# What does not fit


@pytest.mark.parametrize(
    ("parameter", "kind", "told"),
    [
        (Parameter("x", (2, 32), ("absent",)), ModelFileError, "lacks the tensor 'absent'"),
        (
            Parameter("x", (64, 256), ("q.weight",), dtype="q8_0"),
            ModelFileError,
            "tensor 'q.weight' is Q4_1, and x has to be Q8_0",
        ),
        (Parameter("x", (64, 256), ("q.weight",)), UnsupportedModelError, "is Q4_1, and this"),
        (
            Parameter("x", (7, 64), ("upper",), dtype="f16"),
            ModelFileError,
            "'upper' is BF16, and x has to be F16",
        ),
        (Parameter("x", (256, 64), ("q.weight",), dtype="q4_1"), ModelFileError, "does not make"),
        (
            Parameter("x", (96, 256), ("q.weight", "half"), dtype="q4_1"),
            ModelFileError,
            "does not make",
        ),
        (
            Parameter("x", (102, 544), ("token_embd.weight",) * 2, dtype="q8_0"),
            UnsupportedModelError,
            "multiple of 4",
        ),
    ],
)
async def test_tensors_that_do_not_fit_are_told(
    folder: Path, parameter: Parameter, kind: type[BasculeError], told: str
) -> None:
    source = FileSource(folder)
    header = await read_gguf(source, FILE)
    with pytest.raises(kind, match=told) as caught:
        await load_gguf_weights(source, FILE, header, [parameter], ReferenceStore([parameter]))
    assert str(folder / FILE) in str(caught.value)


async def test_leading_rows_of_blocks(folder: Path) -> None:
    parameter = Parameter("x", (5, 256), ("q.weight",), rows=5, dtype="q4_1")
    source, store = FileSource(folder), ReferenceStore([parameter])
    await load_gguf_weights(source, FILE, await read_gguf(source), [parameter], store)
    assert memory(store, "x").tobytes() == expected(1)["qkv"][: 5 * 8 * 20]


@pytest.mark.parametrize(("count", "split"), [(1, False), (3, True)])
async def test_a_part_of_a_split_model_is_refused(tmp_path: Path, count: int, split: bool) -> None:
    counted = key("split.count", U16, struct.pack("<H", count))
    (tmp_path / FILE).write_bytes(gguf_bytes(1, [counted]))
    if not split:
        assert_is(await load(FileSource(tmp_path)), 1)
        return
    with pytest.raises(UnsupportedModelError, match=f"one of {count} files") as caught:
        await read_gguf(FileSource(tmp_path))
    assert "merge" in caught.value.hint


# Files that are cut or lie


async def test_a_file_that_was_cut_short_is_told(folder: Path) -> None:
    start = (await read_gguf(FileSource(folder))).data_start
    for cut in (0, 3, 10, 100, start - 1, start, len(WHOLE) - 40):
        (folder / FILE).write_bytes(WHOLE[:cut])
        with pytest.raises(ModelFileError):
            await load(FileSource(folder))


async def test_a_local_file_that_shrinks_after_its_header_was_read(folder: Path) -> None:
    source = FileSource(folder, chunk_nbytes=CHUNK)
    header = await read_gguf(source)
    for cut in (len(WHOLE) - 40, CHUNK, 100, 0):
        (folder / FILE).write_bytes(WHOLE[:cut])
        with pytest.raises(SourceError, match=r"ends [\d,]+ bytes early"):
            await load_gguf_weights(source, FILE, header, PARAMETERS, poisoned())


async def test_a_header_past_the_files_end(tmp_path: Path) -> None:
    long = key("long", STRING, string("x" * 70_000))
    data = gguf_bytes(1, [long])
    (tmp_path / FILE).write_bytes(data[:30_000])
    with pytest.raises(ModelFileError, match="left in the file"):
        await load(FileSource(tmp_path))
    (tmp_path / FILE).write_bytes(data)
    assert_is(await load(FileSource(tmp_path)), 1)


async def test_bytes_that_flip_in_a_header_are_an_error_or_another_model(
    folder: Path, rng: np.random.Generator
) -> None:
    start = (await read_gguf(FileSource(folder))).data_start
    for _ in range(300):
        data = bytearray(WHOLE)
        data[int(rng.integers(start))] ^= 1 << int(rng.integers(8))
        (folder / FILE).write_bytes(data)
        with suppress(ModelFileError, UnsupportedModelError):
            await load(FileSource(folder))


async def test_the_name_of_a_folders_file(folder: Path) -> None:
    assert await find_gguf(FileSource(folder)) == FILE
    (folder / FILE).rename(folder / "Own-Name.Q4_1.gguf")
    assert await find_gguf(FileSource(folder)) is None
    with pytest.raises(FileMissingError):
        await read_gguf(FileSource(folder))
    assert_is(await load(FileSource(folder), file="Own-Name.Q4_1.gguf"), 1)
