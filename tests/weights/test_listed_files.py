"""With a manifest no server is asked for a file that the folder lacks.

A 404 is a red line in a page's console; e2e/test_anywhere.py looks there.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import bascule
from bascule.errors import FileMissingError
from bascule.weights.location import open_source
from bascule.weights.manifest import write_manifest
from bascule.weights.names import MANIFEST
from bascule.weights.source import UNLISTED_HINT, Source
from tests.goldens import HERE
from tests.weights.faulty import FaultyServer


def encoder(folder: Path) -> None:
    shutil.copytree(HERE / "tiny-bert", folder)


def gguf_folder(folder: Path) -> None:
    """As a folder looks whose GGUF file was made from the config.json beside it."""
    folder.mkdir()
    shutil.copy(HERE / "tiny-llama" / "tiny-q4_1.gguf", folder / "model.gguf")
    shutil.copy(HERE / "tiny-bert" / "config.json", folder)


def lone_gguf(folder: Path) -> None:
    folder.mkdir()
    shutil.copy(HERE / "tiny-llama" / "tiny-q4_1.gguf", folder / "model.gguf")


async def refused_paths(root: Path) -> list[str]:
    """Load the model m on a server of its own; the paths that got no 200, 206 or 304."""
    with FaultyServer(root) as server:
        async with await bascule.load(f"{server.url}/m", tier="cpu"):
            return [asked.path for asked in server.requests if asked.status >= 400]


@pytest.mark.parametrize("make", [encoder, gguf_folder, lone_gguf])
async def test_a_load_with_a_manifest_meets_no_404(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "m")
    assert f"/m/{MANIFEST}" in await refused_paths(tmp_path)
    await write_manifest(tmp_path / "m", 1 / 16, lambda _: None)
    assert await refused_paths(tmp_path) == []


async def test_an_optional_file_that_is_listed_is_read(tmp_path: Path) -> None:
    encoder(tmp_path / "m")
    (tmp_path / "m" / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 7}))
    await write_manifest(tmp_path / "m", 1 / 16, lambda _: None)
    with FaultyServer(tmp_path) as server:
        async with await bascule.load(f"{server.url}/m", tier="cpu") as model:
            assert isinstance(model, bascule.EmbeddingModel)
            assert model.max_tokens == 7


@pytest.mark.parametrize("served", [True, False])
async def test_a_file_that_came_after_the_manifest(tmp_path: Path, served: bool) -> None:
    """What it holds cannot be verified; the error says how to list it."""
    encoder(tmp_path / "m")
    tokenizer = tmp_path / "m" / "tokenizer.json"
    data = tokenizer.read_bytes()
    tokenizer.unlink()
    await write_manifest(tmp_path / "m", 1 / 16, lambda _: None)
    tokenizer.write_bytes(data)
    with FaultyServer(tmp_path) as server:
        place = f"{server.url}/m" if served else str(tmp_path / "m")
        with pytest.raises(FileMissingError) as caught:
            await bascule.load(place, tier="cpu")
        assert caught.value.hint == UNLISTED_HINT
        source: Source = open_source(place)
        with pytest.raises(FileMissingError):
            await source.size("vocab.txt")  # asked for, to say why a load fails
        await source.settle()
        names = ("vocab.txt", "vocab.json", "tokenizer.model", "spiece.model")
        others = {f"/m/{name}" for name in names}
        missed = {a.path for a in server.requests if a.status == 404}
        assert missed == (others if served else set())
