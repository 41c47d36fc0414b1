"""Reading model files from folders and from servers that misbehave."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from bascule.backend.reference import ReferenceStore
from bascule.errors import (
    BasculeError,
    FileMissingError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    SourceError,
    UnsupportedModelError,
)
from bascule.folders import models_folder
from bascule.program.program import Parameter
from bascule.progress import Progress
from bascule.weights.source import open_source
from bascule.weights.stream import load_weights

RNG = np.random.default_rng(11)
TENSORS = {
    "q.weight": RNG.standard_normal((5, 3)).astype(np.float32),
    "k.weight": RNG.standard_normal((7, 3)).astype(np.float32),
    "bert.half": RNG.standard_normal((33,)).astype(np.float16),
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
    "half": TENSORS["bert.half"].astype(np.float32),
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


class Server:
    """A raw HTTP/1.1 server whose every answer a test writes itself."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.mode = "ranges"
        self.requests: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        asked = [line for line in head.lower().split("\r\n") if line.startswith("range: bytes=")]
        start, end = 0, len(self.data)
        if asked:
            first, _, last = asked[0].removeprefix("range: bytes=").partition("-")
            start = int(first)
            end = min(int(last) + 1 if last else len(self.data), len(self.data))
        writer.write(self.answer(start, end, bool(asked)))
        await writer.drain()
        writer.close()

    def answer(self, start: int, end: int, ranged: bool) -> bytes:
        body, size = self.data[start:end], len(self.data)
        told = f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
        big = end - start > 1000
        match self.mode:
            case "whole":
                return self.head(200, size) + self.data
            case "missing":
                return self.head(404, 0)
            case "broken":
                return self.head(503, 0)
            case "drop" if big:
                return self.head(206, len(body), told) + body[: len(body) // 2]
            case "short" if big:
                return self.head(206, len(body) // 2, told) + body[: len(body) // 2]
            case "elsewhere":
                return self.head(206, len(body), f"Content-Range: bytes 7-9/{size}\r\n") + body
            case "zipped":
                return self.head(206, len(body), told + "Content-Encoding: gzip\r\n") + body
            case "long":
                return self.head(206, len(body) + 50, told) + body + b"x" * 50
            case _:
                return self.head(206 if ranged else 200, len(body), told if ranged else "") + body

    def head(self, status: int, length: int, more: str = "") -> bytes:
        text = f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\nConnection: close\r\n{more}\r\n"
        return text.encode()


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    handler = Server(save(TENSORS))
    listening = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    yield handler, f"http://127.0.0.1:{port}/models/tiny"
    listening.close()


async def test_a_folder_loads_stacked_widened_and_cut(folder: Path) -> None:
    store, told = poisoned(PARAMETERS), list[Progress]()
    await load_weights(open_source(str(folder)), PARAMETERS, store, progress=told.append)
    assert_loaded(store)
    assert [p.done for p in told] == sorted(p.done for p in told)
    assert told[-1].done == told[-1].total == 12 * 3 * 4 + 33 * 2 + 3 * 4


@pytest.mark.parametrize("mode", ["ranges", "whole", "long"])
async def test_a_server_loads_whatever_it_makes_of_ranges(
    server: tuple[Server, str], mode: str
) -> None:
    handler, url = server
    handler.mode = mode
    store = poisoned(PARAMETERS)
    await load_weights(open_source(url), PARAMETERS, store)
    assert_loaded(store)
    assert "GET /models/tiny/model.safetensors " in handler.requests[0]


@pytest.mark.parametrize(
    ("mode", "kind", "told"),
    [
        ("missing", FileMissingError, "no such file"),
        ("broken", SourceError, "503"),
        ("drop", SourceError, "connection failed"),
        ("short", SourceError, "too little"),
        ("elsewhere", SourceError, "another range"),
        ("zipped", SourceError, "compressed"),
    ],
)
async def test_a_failing_server_is_told_with_its_place(
    server: tuple[Server, str], mode: str, kind: type[BasculeError], told: str
) -> None:
    handler, url = server
    handler.mode = mode
    parameters = (Parameter("unused", (1001,), ("unused",)),)
    with pytest.raises(kind, match=told) as caught:
        await load_weights(open_source(url), parameters, ReferenceStore(parameters))
    assert url in str(caught.value)


async def test_no_server_at_all() -> None:
    with pytest.raises(SourceError, match="connection failed"):
        await open_source("http://127.0.0.1:9/x").read("config.json")


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


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "model.bin", "", "config.json/../x"])
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
