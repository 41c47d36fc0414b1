"""A local model folder that came from elsewhere: named pipes, devices, links, changed files."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bascule.backend.host_arrays import ReferenceStore
from bascule.base.folders import file_nbytes, is_abandoned, open_regular, write_whole
from bascule.errors import BasculeError, HashMismatchError, ModelFileError, SourceError
from bascule.program.program import Parameter
from bascule.weights.manifest import write_manifest
from bascule.weights.names import MANIFEST
from bascule.weights.source import FileSource
from bascule.weights.stream import load_weights

FILE = "model.safetensors"
PARAMETERS = (Parameter("a", (100_000,), ("a",)),)


def socket_at(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a named pipe"),
        (os.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (socket_at, "a socket"),
    ],
)
async def test_only_regular_files_are_opened(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    for name in ("config.json", FILE, "model.gguf", MANIFEST):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        make(folder / name)
        file = name
        if name == MANIFEST:
            file = "config.json"
            (folder / file).write_bytes(b"{}")
        with pytest.raises(SourceError, match=f"it is {kind}, not a regular file"):
            await asyncio.wait_for(FileSource(folder).read(file), 30)
        for refused in (file_nbytes, open_regular):
            with pytest.raises(OSError, match=kind):
                refused(folder / name)


async def test_a_file_that_becomes_a_pipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"{}")
    source = FileSource(tmp_path)
    assert await source.size("config.json") == 2
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(SourceError, match="named pipe"):
        await asyncio.wait_for(source.read("config.json", 0, 2), 30)


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A model whose header takes more than two of its chunks, with a manifest."""
    folder = tmp_path / "m"
    folder.mkdir()
    padding = "x" * 200_000
    head = f'{{"__metadata__": {{"p": "{padding}"}}, "a": {{"dtype": "F32", "shape": [100000], '
    head += '"data_offsets": [0, 400000]}}'
    data = np.arange(100_000, dtype=np.float32).tobytes()
    (folder / FILE).write_bytes(struct.pack("<Q", len(head)) + head.encode() + data)
    await write_manifest(folder, 1 / 16, lambda _: None)
    return folder


async def load(folder: Path) -> np.ndarray:
    store = ReferenceStore(PARAMETERS)
    await load_weights(FileSource(folder), PARAMETERS, store)
    return store.arrays["a"]


@pytest.mark.parametrize("at", [70_000, 150_000, 300_000])
async def test_a_manifest_covers_chunks_of_the_header_alone(folder: Path, at: int) -> None:
    np.testing.assert_array_equal(await load(folder), np.arange(100_000))
    data = bytearray((folder / FILE).read_bytes())
    data[at] = ord("y")
    (folder / FILE).write_bytes(data)
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(HashMismatchError, match=f"chunk {at >> 16} is not that of the manifest"),
    ):
        await load(folder)


async def test_parts_out_of_verified_chunks_are_right(folder: Path) -> None:
    data, source = (folder / FILE).read_bytes(), FileSource(folder)
    for offset, nbytes in ((0, 8), (65_530, 20), (65_536, 65_536), (10, 0), (599_000, 1000)):
        assert await source.read(FILE, offset, nbytes) == data[offset : offset + nbytes]
    with pytest.raises(SourceError, match="ends 1 bytes early"):
        await source.read(FILE, len(data) - 4, 5)


async def test_a_file_of_another_size_than_the_manifests(folder: Path) -> None:
    with (folder / FILE).open("ab") as file:
        file.write(b"more")
    with pytest.raises(HashMismatchError, match="its manifest says"):
        await FileSource(folder).size(FILE)


@pytest.mark.parametrize("spoilt", [b"", b"{", b"<html>", "cut"])
async def test_a_damaged_manifest_is_an_error(folder: Path, spoilt: bytes | str) -> None:
    data = (folder / MANIFEST).read_bytes()
    (folder / MANIFEST).write_bytes(spoilt if isinstance(spoilt, bytes) else data[:-9])
    with pytest.raises(ModelFileError, match="damaged or truncated") as caught:
        await load(folder)
    assert "bascule manifest" in caught.value.hint


async def test_a_manifest_is_never_written_through_a_link(folder: Path) -> None:
    mine = folder.parent / "mine.txt"
    mine.write_text("mine")
    (folder / MANIFEST).unlink()
    for name in (MANIFEST, f".{MANIFEST}.new", f"{MANIFEST}.part"):
        (folder / name).symlink_to(mine)
    before = set(folder.iterdir())
    await write_manifest(folder, 4, lambda _: None)
    assert mine.read_text() == "mine"
    assert not (folder / MANIFEST).is_symlink()
    assert set(folder.iterdir()) == before  # nothing is left beside it
    umask = os.umask(0)
    os.umask(umask)
    assert (folder / MANIFEST).stat().st_mode & 0o777 == 0o666 & ~umask


async def test_a_manifest_that_cannot_be_written(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).mkdir()
    with pytest.raises(BasculeError, match="cannot be written"):
        await write_manifest(folder, 4, lambda _: None)
    assert [path.name for path in folder.iterdir() if path.suffix == ".part"] == []


def test_what_a_killed_process_was_writing_is_abandoned(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    part = tmp_path / "b.part"
    part.write_bytes(b"half")
    assert is_abandoned(part)
    if sys.platform != "win32":
        import fcntl

        with part.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            assert not is_abandoned(part)
