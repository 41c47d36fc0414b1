"""Names, folders and URLs; fetching and its faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from bascule.errors import ModelNotFoundError
from bascule.folders import models_folder
from bascule.model import hub
from bascule.model.registry import KNOWN, locate


def test_names_folders_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate("https://example.com/m") == "https://example.com/m"
    assert locate(str(tmp_path)) == str(tmp_path)
    assert locate("all-MiniLM-L6-v2") == str(models_folder() / "all-MiniLM-L6-v2")
    with pytest.raises(ModelNotFoundError, match="all-MiniLM-L6-v2"):
        locate("all-minilm-l6")
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="bascule pull all-MiniLM-L6-v2"):
        locate("all-MiniLM-L6-v2")


async def test_the_pulled_model_is_sound_and_pulled_once() -> None:
    home = models_folder() / "all-MiniLM-L6-v2"
    before = (home / "model.safetensors").stat()
    assert hub._faults(home, KNOWN["all-MiniLM-L6-v2"]) == []
    assert await hub.pull("all-MiniLM-L6-v2") == home
    assert (home / "model.safetensors").stat() == before


def test_a_damaged_or_missing_file_is_noticed(tmp_path: Path) -> None:
    home = models_folder() / "all-MiniLM-L6-v2"
    model = KNOWN["all-MiniLM-L6-v2"]
    for file in model.files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).symlink_to(home / file)
    assert hub._faults(tmp_path, model) == []
    (tmp_path / "config.json").unlink()
    damaged = tmp_path / "tokenizer.json"
    damaged.unlink()
    damaged.write_bytes((home / "tokenizer.json").read_bytes()[:-1] + b"?")
    assert hub._faults(tmp_path, model) == ["config.json is missing", "tokenizer.json is damaged"]


async def test_an_unknown_model_cannot_be_pulled() -> None:
    with pytest.raises(ModelNotFoundError, match="MiniLM"):
        await hub.pull("all-MiniLM-L6")
