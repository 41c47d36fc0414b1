"""Reading model files from folders and from servers that misbehave."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from bascule.backend.host_arrays import ReferenceStore
from bascule.base.folders import models_folder
from bascule.base.progress import Progress
from bascule.errors import (
    BasculeError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from bascule.program.program import Parameter
from bascule.weights.location import open_source, split_location
from bascule.weights.stream import load_weights

RNG = np.random.default_rng(11)
TENSORS = {
    "q.weight": RNG.standard_normal((5, 3)).astype(np.float32),
    "k.weight": RNG.standard_normal((7, 3)).astype(np.float32),
    "half": RNG.standard_normal((33,)).astype(np.float16),
    "types": RNG.standard_normal((2, 3)).astype(np.float32),
    "unused": RNG.standard_normal((1001,)).astype(np.float32),
}
PARAMETERS = (
    Parameter("stacked", (12, 3), ("q.weight", "k.weight")),
    Parameter("half", (33,), ("half",)),
    Parameter("type_0", (3,), ("types",), rows=1),
)
EXPECTED = {
    "stacked": np.concatenate([TENSORS["q.weight"], TENSORS["k.weight"]]),
    "half": TENSORS["half"].astype(np.float32),
    "type_0": TENSORS["types"][0],
}


def poisoned(parameters: tuple[Parameter, ...]) -> ReferenceStore:
    store = ReferenceStore(parameters)
    for array in store.arrays.values():
        array.fill(np.nan)
    return store


def assert_loaded(store: ReferenceStore) -> None:
    for name, wanted in EXPECTED.items():
        np.testing.assert_array_equal(store.arrays[name], wanted)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(save(TENSORS))
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


async def test_a_folder_loads_stacked_widened_and_cut(folder: Path) -> None:
    store, result = poisoned(PARAMETERS), list[Progress]()
    await load_weights(open_source(str(folder)), PARAMETERS, store, progress=result.append)
    assert_loaded(store)
    assert [p.done for p in result] == sorted(p.done for p in result)
    assert result[-1].done == result[-1].total == 12 * 3 * 4 + 33 * 2 + 3 * 4


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("ftp://host/x", InputError),
        ("file:///etc", InputError),
        ("http://user:secret@host/x", InputError),
        ("http://host/x?y=1", InputError),
        ("http:///x", InputError),
        ("/no/such/folder", ModelNotFoundError),
    ],
)
def test_places_that_are_refused(location: str, kind: type[BasculeError]) -> None:
    with pytest.raises(kind) as caught:
        open_source(location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "found"),
    [
        ("https://h/a/model.gguf", ("https://h/a", "model.gguf")),
        ("https://h/Q4_K-m.1.gguf", ("https://h", "Q4_K-m.1.gguf")),
        ("https://h/a/b", ("https://h/a/b", None)),
        ("https://h/a.gguf/", ("https://h/a.gguf/", None)),
        ("https://h.gguf", ("https://h.gguf", None)),
        ("folder/sub", ("folder/sub", None)),
        ("folder/a.gguf", ("folder", "a.gguf")),
        ("a.gguf", (".", "a.gguf")),
        ("a.GGUF", ("a.GGUF", None)),
    ],
)
def test_a_location_may_name_a_gguf_file(location: str, found: tuple[str, str | None]) -> None:
    assert split_location(location) == found


def test_a_folder_may_be_called_like_a_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").mkdir()
    assert split_location(str(tmp_path / "x.gguf")) == (str(tmp_path / "x.gguf"), None)


@pytest.mark.parametrize(
    "location",
    [
        "https://user:secret@h/%2e%2e%2fx.gguf",
        "https://h/a/.gguf",
        "https://h/..gguf",
        "https://h/a b.gguf",
        "folder/-x.gguf",
        f"folder/{'x' * 201}.gguf",
    ],
)
def test_names_of_gguf_files_that_are_refused(location: str) -> None:
    with pytest.raises(InputError, match=r"ends in \.gguf") as caught:
        split_location(location)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        *["../secret", "/etc/passwd", "weights.bin", "", "config.json/../x"],
        *["a/b.gguf", "../x.gguf", ".gguf", "x.gguf/../y"],
    ],
)
async def test_only_known_file_names_are_read(folder: Path, file: str) -> None:
    with pytest.raises(InputError):
        await open_source(str(folder)).read(file)


async def test_a_truncated_file_is_told(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    for cut in (0, 5, 60, len(whole) - 1):
        (folder / "model.safetensors").write_bytes(whole[:cut])
        with pytest.raises(ModelFileError):
            await load_weights(open_source(str(folder)), PARAMETERS, ReferenceStore(PARAMETERS))


@pytest.mark.parametrize(
    ("parameter", "kind", "told"),
    [
        (Parameter("x", (2,), ("absent",)), ModelFileError, "lacks the tensor 'absent'"),
        (Parameter("x", (5, 4), ("q.weight",)), ModelFileError, r"\[5, 3\]"),
        (Parameter("x", (4, 3), ("types",), rows=4), ModelFileError, "does not make"),
        (Parameter("x", (40, 3), ("q.weight", "half")), ModelFileError, "does not make"),
    ],
)
async def test_tensors_that_do_not_fit_are_told(
    folder: Path, parameter: Parameter, kind: type[BasculeError], told: str
) -> None:
    with pytest.raises(kind, match=told):
        await load_weights(open_source(str(folder)), [parameter], ReferenceStore([parameter]))


async def test_a_dtype_that_is_no_float_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(save({"a": np.zeros(3, np.int64)}))
    parameter = Parameter("a", (3,), ("a",))
    with pytest.raises(UnsupportedModelError, match="I64"):
        await load_weights(open_source(str(tmp_path)), [parameter], ReferenceStore([parameter]))


async def test_bfloat16_is_the_upper_half(tmp_path: Path) -> None:
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F7F], np.uint16)
    header = b'{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}'
    data = struct.pack("<Q", len(header)) + header + bits.tobytes()
    (tmp_path / "model.safetensors").write_bytes(data)
    parameter = Parameter("a", (4,), ("a",))
    store = poisoned((parameter,))
    await load_weights(open_source(str(tmp_path)), [parameter], store)
    np.testing.assert_array_equal(store.arrays["a"].view(np.uint32), bits.astype(np.uint32) << 16)


async def test_a_load_can_be_cancelled() -> None:
    source: Any = open_source(str(models_folder() / "all-MiniLM-L6-v2"))
    parameter = Parameter("words", (30522, 384), ("embeddings.word_embeddings.weight",))
    store, done = poisoned((parameter,)), list[int]()

    def stop(progress: Progress) -> None:
        done.append(progress.done)
        if len(done) == 3:
            task.cancel()

    task = asyncio.ensure_future(load_weights(source, [parameter], store, progress=stop))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done[-1] < parameter.nbytes
    assert np.isnan(store.arrays["words"]).any()
