"""Parameters that are some rows of a stack of tensors, out of files of both formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from bascule.backend.host_arrays import ReferenceStore
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Parameter
from bascule.program.rewrites.cuts import parts_of
from bascule.weights.gguf_stream import load_gguf_weights, read_gguf
from bascule.weights.source import FileSource
from bascule.weights.stream import load_weights
from tests.weights.gguf_models import FILE, PARAMETERS, gguf_bytes


def bytes_of(store: ReferenceStore, name: str) -> bytes:
    array = store.arrays[name]
    return (array.data if isinstance(array, BlockMatrix) else array).tobytes()


@pytest.mark.parametrize("parts", [1, 2, 3, 7])
async def test_parts_of_a_gguf_file_are_the_rows_of_the_whole(tmp_path: Path, parts: int) -> None:
    """Whatever the blocks, stacked or not; widened or as they are."""
    (tmp_path / FILE).write_bytes(gguf_bytes(1))
    source = FileSource(tmp_path)
    header = await read_gguf(source, FILE)
    whole = ReferenceStore(PARAMETERS)
    await load_gguf_weights(source, FILE, header, PARAMETERS, whole)
    for parameter in PARAMETERS:
        cut = parts_of(parameter, min(parts, -(-parameter.shape[0] // 4)))
        assert sum(p.shape[0] for p in cut) == parameter.shape[0]
        store = ReferenceStore(cut)
        await load_gguf_weights(source, FILE, header, cut, store)
        result = b"".join(bytes_of(store, p.name) for p in cut)
        assert result == bytes_of(whole, parameter.name), parameter.name


SHAPES = {"q": (8, 6), "k": (4, 6), "v": (5, 6)}


async def load(folder: Path, parameter: Parameter) -> np.ndarray:
    store = ReferenceStore([parameter])
    await load_weights(FileSource(folder), [parameter], store)
    return np.asarray(store.arrays[parameter.name])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tensors = {
        name: np.random.default_rng(rows).standard_normal((rows, inner)).astype(np.float16)
        for name, (rows, inner) in SHAPES.items()
    }
    save_file(
        {**tensors, "qkv": np.concatenate(list(tensors.values()))}, tmp_path / "model.safetensors"
    )
    return tmp_path


@pytest.mark.parametrize(("first", "rows"), [(0, 17), (0, 8), (5, 2), (7, 6), (8, 4), (3, 14)])
async def test_rows_across_a_stack(folder: Path, first: int, rows: int) -> None:
    whole = await load(folder, Parameter("w", (17, 6), ("qkv",)))
    place = {"rows": rows, "first": first, "whole": 17}
    result = await load(folder, Parameter("w", (rows, 6), tuple(SHAPES), **place))
    assert np.array_equal(result, whole[first : first + rows])


@pytest.mark.parametrize(
    ("rows", "first", "whole"), [(4, 0, 16), (4, 0, 18), (4, 14, 0), (17, 1, 0), (4, 16, 20)]
)
async def test_a_stack_of_another_height_is_refused(
    folder: Path, rows: int, first: int, whole: int
) -> None:
    place = {"rows": rows, "first": first, "whole": whole}
    with pytest.raises(ModelFileError, match=r"q \[8, 6\].*does not make w"):
        await load(folder, Parameter("w", (rows, 6), tuple(SHAPES), **place))


async def test_blocks_that_start_inside_a_word_are_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(gguf_bytes(1))
    source = FileSource(tmp_path)
    header = await read_gguf(source, FILE)
    odd = Parameter("w", (52, 544), ("token_embd.weight",) * 2, rows=52, first=50, dtype="q8_0")
    with pytest.raises(UnsupportedModelError, match="no multiple of 4"):
        await load_gguf_weights(source, FILE, header, [odd], ReferenceStore([odd]))


@pytest.mark.parametrize(
    "place",
    [{"first": -1, "rows": 2}, {"first": 3}, {"rows": -1}, {"first": 3, "rows": 2, "whole": 4}],
    ids=str,
)
def test_rows_that_cannot_be(place: dict[str, int]) -> None:
    with pytest.raises(InputError, match="parameter w"):
        Parameter("w", (2, 6), ("q",), **place)
