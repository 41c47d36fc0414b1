"""Mistyped addresses and names, hub ids, and what lies where a model file should be."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

import bascule
from bascule.base.folders import models_folder
from bascule.errors import (
    BasculeError,
    FileMissingError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
)
from bascule.tasks.registry import KNOWN, known_hashes, locate, missing_in_page, pullable
from bascule.weights.location import check_url, open_source

BAD = [
    "http://[",
    "http://",
    "http://h:99999/x",
    "http://h:x/",
    "http://h:-1/x",
    "http://\x00/",
    "http://h/x\ny",
    "http://" + "a" * 70 + "/x",
    "http://" + "a." * 200 + "x",
    "http://..",
    "http://xn--/x",
    "http://xn--a/x",
    "http://\u0378/x",
    "http://256.256.256.256/x",
    "http://[::1",
    "http://[::g]/x",
    "http://[v1.x]/y",
    "http://h/\ud800",
    "http://\ud800/x",
    "https://\u2100/x",
    "http://h\\x/",
    "http://h/" + "x" * 100_000,
    "http://h/x?y",
    "http://h/#",
    "http://h/\x00.gguf",
    "http://[.gguf",
    "HTTP://[",
    "ftp://h/x",
    "~no-such-user/x",
    "a\0b",
    "x" * 5000,
    "x/" * 3000,
    "x\ud800/",
    "\ud800.gguf",
    "",
    " ",
]


@pytest.mark.parametrize("location", BAD, ids=lambda location: ascii(location[:24]))
async def test_what_is_no_address_is_an_input_error(location: str) -> None:
    with pytest.raises(InputError):
        await bascule.load(location, tier="cpu")


@pytest.mark.parametrize("location", [x for x in BAD if "\ud800" not in x and "\0" not in x])
def test_the_command_line_has_words_for_it(location: str) -> None:
    from bascule.cli.main import main

    errors, sys.stderr = sys.stderr, io.StringIO()
    try:
        assert main(["embed", "--tier", "cpu", "--model", location[:20_000], "x"]) == 1
        assert sys.stderr.getvalue().startswith("bascule: ")
    finally:
        sys.stderr = errors


def test_a_link_that_leads_to_itself(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="symbolic links"):
        locate(str(tmp_path / "loop"))


def test_sound_addresses_pass() -> None:
    for url in ("http://127.0.0.1:8600/models/m", "https://h.example/a b", "http://[::1]/m"):
        assert check_url(url + "/") == url
        assert open_source(url).location == url


def test_a_hub_id_that_was_not_pulled_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path))
    for repo in ("BAAI/bge-small-en-v1.5", "sentence-transformers/all-MiniLM-L6-v2"):
        with pytest.raises(ModelNotFoundError) as caught:
            locate(repo)
        assert "bascule pull " in caught.value.hint
    with pytest.raises(ModelNotFoundError, match=r"bascule pull BAAI/bge-small-en-v1\.5"):
        locate("BAAI/bge-small-en-v1.5")


def test_the_hub_id_of_a_known_model_is_that_model(tmp_path: Path) -> None:
    repo = "sentence-transformers/all-MiniLM-L6-v2"
    assert locate(repo) == str(models_folder() / "all-MiniLM-L6-v2")
    assert known_hashes(repo) == KNOWN["all-MiniLM-L6-v2"].files
    assert pullable(repo) is KNOWN["all-MiniLM-L6-v2"]


def test_pull_offers_what_it_takes() -> None:
    assert pullable("BAAI/bge-small-en-v1.5@main") is None
    for name in ("all-MiniLM-L6", "./folder", "a/b/c", "https://h/x", ""):
        with pytest.raises(ModelNotFoundError, match="OWNER/NAME") as caught:
            pullable(name)
        assert "URL" not in caught.value.hint
        assert "folder" not in caught.value.hint


def test_a_page_says_where_it_looked() -> None:
    missing = FileMissingError("http://h/models/x/config.json")
    result = missing_in_page("all-MiniLM-L6-v2", "http://h/models/x", missing)
    assert isinstance(result, ModelNotFoundError)
    assert "http://h/models/x/config.json" in result.what
    assert "URL" in result.hint
    result = missing_in_page("BAAI/bge-small-en-v1.5", "http://h/BAAI/x", missing)
    assert "bascule pull BAAI/bge-small-en-v1.5" in result.hint
    assert missing_in_page("/models/x", "http://h/models/x", missing) is missing


POINTER = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db\nsize 90868376\n"
)
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.mark.parametrize(("data", "kind"), [(POINTER, "Git LFS pointer"), (PAGE, "web page")])
@pytest.mark.parametrize("file", ["model.safetensors", "model.gguf", "config.json"])
async def test_what_is_no_model_file_is_named(
    tmp_path: Path, data: bytes, kind: str, file: str
) -> None:
    from tests.goldens import TINY_BERT

    if file != "model.gguf":
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (tmp_path / name).write_bytes((TINY_BERT / name).read_bytes())
    (tmp_path / file).write_bytes(data)
    model = tmp_path / file if file == "model.gguf" else tmp_path
    with pytest.raises(ModelFileError, match=f"it is a {kind}") as caught:
        await bascule.load(model, tier="cpu")
    assert file in caught.value.what
    assert isinstance(caught.value, BasculeError)
    assert "git lfs pull" in caught.value.hint or "server" in caught.value.hint


def test_no_address_ends_in_a_traceback() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "bascule", "embed", "--model", "http://[", "x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "http://[" in result.stderr
