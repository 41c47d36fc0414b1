"""Names, folders and URLs; fetching and its faults."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from bascule.base.folders import models_folder
from bascule.errors import ModelFileError, ModelNotFoundError
from bascule.tasks import hub
from bascule.tasks.registry import KNOWN, KnownModel, known_hashes, known_kind, locate

WEB = Path(__file__).resolve().parent.parent.parent / "web"


def test_names_folders_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locate("https://example.com/m") == "https://example.com/m"
    assert locate(str(tmp_path)) == str(tmp_path)
    assert locate("all-MiniLM-L6-v2") == str(models_folder() / "all-MiniLM-L6-v2")
    with pytest.raises(ModelNotFoundError, match="all-MiniLM-L6-v2"):
        locate("all-minilm-l6")
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="bascule pull all-MiniLM-L6-v2"):
        locate("all-MiniLM-L6-v2")
    (tmp_path / "models" / "SmolLM2-135M-Instruct").mkdir(parents=True)
    with pytest.raises(ModelNotFoundError, match="bascule pull SmolLM2-135M-Instruct"):
        locate("SmolLM2-135M-Instruct")
    (tmp_path / "models" / "SmolLM2-135M-Instruct" / "model.gguf").touch()
    assert locate("SmolLM2-135M-Instruct").endswith("/SmolLM2-135M-Instruct")


def test_what_known_models_are() -> None:
    assert known_kind("all-MiniLM-L6-v2") == "sentence-encoder"
    assert known_kind("SmolLM2-135M-Instruct") == "language-model"
    assert known_kind("folder/model.gguf") is None
    assert list(known_hashes("SmolLM2-135M-Instruct")) == ["model.gguf"]


def test_no_javascript_names_a_model() -> None:
    """Pages have theirs in their markup; files come from wheel/index.json and the last load."""
    scripts = [path for path in WEB.rglob("*.js") if "vendor" not in path.parts]
    assert len(scripts) > 40
    files = {file for model in KNOWN.values() for file in model.files}
    for path in scripts:
        code = re.sub(r"^\s*(//|/?\*).*$", "", path.read_text(), flags=re.MULTILINE)
        assert [name for name in KNOWN if name in code] == [], path
        if path.name in ("ahead.js", "early.js", "prefetch.js", "worker.js"):
            assert [file for file in files if file in code] == [], path
    markup = "".join(path.read_text() for path in WEB.glob("*.html"))
    # The page of speech takes one by its address; voice activity is for Python.
    shown = {*re.findall(r'data-model="([^"]*)"', markup), "whisper-base"}
    assert shown == {name for name, model in KNOWN.items() if model.kind != "voice-activity"}


@pytest.mark.parametrize("name", list(KNOWN))
async def test_the_pulled_model_is_sound_and_pulled_once(name: str) -> None:
    home = models_folder() / name
    before = [(home / file).stat() for file in KNOWN[name].files]
    assert hub._faults(home, KNOWN[name]) == []
    assert await hub.pull(name) == home
    assert [(home / file).stat() for file in KNOWN[name].files] == before


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


FILES = {"model.gguf": b"weights", "sub/config.json": b"{}"}


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A known model "tiny" of a hub that nobody reaches; a folder with its files."""
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    model = KnownModel("tiny", "language-model", "owner/tiny", hashes)
    monkeypatch.setitem(KNOWN, "tiny", model)  # type: ignore[arg-type]
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "files"
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


async def test_files_of_a_folder(tiny: Path) -> None:
    """The user's own files stay."""
    home = models_folder() / "tiny"
    home.mkdir(parents=True)
    (home / "other.gguf").write_text("mine")
    (home / "model.gguf").write_text("damaged")
    (home / "bascule-manifest.json").write_text("of the damaged one")
    assert await hub.pull_from("tiny", tiny) == home
    results = {p.relative_to(home).as_posix(): p for p in home.rglob("*") if p.is_file()}
    assert {name: path.read_bytes() for name, path in results.items()} == {
        **FILES,
        "other.gguf": b"mine",
    }
    assert [p.name for p in home.parent.iterdir()] == ["tiny"]
    assert await hub.pull("tiny") == home  # it is there and sound: no hub is asked


async def test_a_folder_with_other_bytes_changes_nothing(tiny: Path) -> None:
    home = models_folder() / "tiny"
    home.mkdir(parents=True)
    (home / "model.gguf").write_text("before")
    (tiny / "model.gguf").write_bytes(b"other")
    with pytest.raises(ModelFileError, match=r"model\.gguf is damaged"):
        await hub.pull_from("tiny", tiny)
    (tiny / "model.gguf").unlink()
    with pytest.raises(ModelFileError, match=r"it has no model\.gguf"):
        await hub.pull_from("tiny", tiny)
    with pytest.raises(ModelNotFoundError, match="neither a known name"):
        await hub.pull_from("owner/other", tiny)
    assert (home / "model.gguf").read_text() == "before"
    assert [p.name for p in home.parent.iterdir()] == ["tiny"]
