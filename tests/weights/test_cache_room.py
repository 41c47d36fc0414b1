"""What may be evicted for whom, what killed processes leave, and folders that may not be used."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bascule import cache
from bascule.cache import ORPHANED, is_below
from bascule.errors import InputError, ModelFileError, SetupError, SourceError
from bascule.weights.journal import MAX_CHUNKS, Journal, max_nbytes
from tests.weights.test_network import (
    CHUNK,
    FILE,
    Site,
    assert_is,
    load,
    safetensors_bytes,
    site,
    stored_by_model,
    write_manifest,
)

__all__ = ["site"]

SIZE = len(safetensors_bytes(1))


@pytest.fixture(autouse=True)
def no_pulled_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`rm --all` removes pulled models as well: never the user's own."""
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests remove is never the developer's own: `rm --all` takes pulled models, too."""
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))


def limit(monkeypatch: pytest.MonkeyPatch, nbytes: float) -> None:
    monkeypatch.setenv("BASCULE_CACHE_MOST_GB", str(nbytes / 1e9))


def add(site: Site, name: str, data: bytes) -> str:
    (site.folder.parent / name).mkdir()
    (site.folder.parent / name / FILE).write_bytes(data)
    return f"{site.server.url}/{name}"


@pytest.mark.parametrize("claimed", [10**14, 10**15 - 1, MAX_CHUNKS * CHUNK + 1])
async def test_a_length_that_cannot_be_true_is_refused(site: Site, claimed: int) -> None:
    """Before anything is sized by it, and without an eviction."""
    await load(site.url)
    liar = add(site, "liar", safetensors_bytes(2))
    site.server.claim(f"liar/{FILE}", claimed)
    with pytest.raises(ModelFileError, match=f"the server claims {claimed:,} bytes") as caught:
        await load(liar)
    assert "Content-Length" in caught.value.hint
    assert site.server.sent[f"/liar/{FILE}"] == 0
    assert stored_by_model() == {"m": SIZE}


@pytest.mark.parametrize("header", ["garbage", "sound"])
async def test_a_length_that_never_fits_evicts_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch, header: str
) -> None:
    await load(site.url)
    limit(monkeypatch, 1.5 * SIZE)
    claimed = 10**10
    head = b'{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    if header == "sound":
        n = 10**10 - 200
        head = f'{{"a":{{"dtype":"F32","shape":[{n // 4}],"data_offsets":[0,{n}]}}}}'.encode()
        head = head.ljust(192)
    liar = add(site, "liar", struct.pack("<Q", len(head)) + head + bytes(CHUNK))
    site.server.claim(f"liar/{FILE}", claimed)
    with (
        pytest.warns(UserWarning, match=r"not enough space .* MB missing"),
        pytest.raises((ModelFileError, SourceError)),
    ):
        await load(liar)
    assert stored_by_model()["m"] == SIZE


async def test_nothing_is_evicted_before_the_header_was_read(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that would fit in place of another, and that is no model."""
    await load(site.url)
    limit(monkeypatch, SIZE + CHUNK // 2)
    spoilt = bytearray(safetensors_bytes(2))
    spoilt[:8] = b"\xff" * 8
    with pytest.raises(ModelFileError):
        await load(add(site, "spoilt", bytes(spoilt)))
    assert stored_by_model()["m"] == SIZE
    # A sound one of that size takes the place, and all of it is kept, its first chunk as well.
    store, _ = await load(add(site, "sound", safetensors_bytes(3)))
    assert_is(store, 3)
    assert stored_by_model() == {"sound": SIZE}
    site.server.down()
    store, _ = await load(f"{site.server.url}/sound")
    assert_is(store, 3)


async def test_a_length_that_is_a_lie_evicts_for_what_came_alone(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound header, a claim that would fit, two chunks that come: room for these is there."""
    await load(site.url)
    limit(monkeypatch, 10 * SIZE)
    n = 9 * SIZE
    head = f'{{"first":{{"dtype":"F32","shape":[{n // 4}],"data_offsets":[0,{n}]}}}}'.encode()
    liar = add(site, "liar", struct.pack("<Q", len(head)) + head + bytes(2 * CHUNK))
    site.server.claim(f"liar/{FILE}", 8 + len(head) + n)
    with pytest.raises((ModelFileError, SourceError)):
        await load(liar)
    assert stored_by_model()["m"] == SIZE


def test_a_limit_that_is_no_number_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("much", "inf", "nan"):
        monkeypatch.setenv("BASCULE_CACHE_MOST_GB", value)
        assert max_nbytes() == 64 << 30


def leave_orphans(home: Path) -> int:
    """What killed processes leave: half-written chunks, one that no entry names, a bad entry."""
    folder = home / "chunks" / "ab"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f".{'ab' * 20}.0123456789abcdef.part").write_bytes(bytes(1000))
    (folder / "tmpab_cd12z.part").write_bytes(bytes(1000))  # as the first version called them
    (folder / ("ab" * 32)).write_bytes(bytes(3000))
    (home / "files").mkdir(exist_ok=True)
    for mine in (folder / "mine.part", folder / "notes.txt", home / "files" / "mine.json"):
        mine.write_text("mine")
    (home / "chunks" / ".DS_Store").write_text("the system's")
    (home / "files" / ("0" * 32 + ".json")).write_bytes(b"{")
    return 5001


def files_in(home: Path) -> set[Path]:
    """All files but the user's own."""
    own = ("mine.part", "notes.txt", "mine.json", ".DS_Store")
    return {p for p in home.rglob("*") if p.is_file() and p.name not in own}


async def test_orphaned_chunks_are_listed_and_removed(site: Site, weights_home: Path) -> None:
    await load(site.url)
    whole = files_in(weights_home)
    nbytes = leave_orphans(weights_home)
    (result,) = [each for each in await cache.ls() if each.kind == "orphaned"]
    assert (result.location, result.stored_nbytes, result.in_use) == (ORPHANED, nbytes, False)
    assert await cache.verify() == {ORPHANED: 4}
    assert files_in(weights_home) == whole
    assert await cache.verify() == {}
    leave_orphans(weights_home)
    assert await cache.rm([ORPHANED]) == 4
    assert [each.kind for each in await cache.ls()] == ["fetched"]
    leave_orphans(weights_home)
    assert await cache.rm(everything=True) == 5
    assert not {p for p in files_in(weights_home) if len(p.name) == 64 or p.suffix == ".json"}
    assert (weights_home / "chunks" / "ab" / "notes.txt").read_text() == "mine"
    assert await cache.ls() == []


async def test_orphaned_chunks_make_room_first(
    site: Site, weights_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await load(site.url)
    leave_orphans(weights_home)
    journal = Journal()
    assert journal.space(SIZE + 5000).free == 0  # they count
    assert journal.make_room(4000, SIZE + 5000) == 0
    assert journal.orphans() == []
    assert stored_by_model() == {"m": SIZE}
    assert journal.make_room(SIZE + 5001, SIZE + 5000) == 1
    assert stored_by_model() == {"m": SIZE}
    assert journal.make_room(6000, SIZE + 5000) == 0
    assert stored_by_model() == {}


KILLED = """
import os, sys
from pathlib import Path
import bascule.base.folders as folders
real = os.replace
def killed(old, new):
    if len(Path(new).name) == 64:
        os.kill(os.getpid(), 9)
    real(old, new)
os.replace = killed
import asyncio
from tests.weights.test_network import load
asyncio.run(load(sys.argv[1]))
"""


async def test_a_process_that_is_killed_while_it_writes(site: Site, weights_home: Path) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, site.url)
    assert await process.wait() == -9
    left = [p for p in weights_home.rglob("*.part") if p.is_file()]
    assert len(left) == 1
    assert ORPHANED in [each.location for each in await cache.ls()]
    assert await cache.rm(everything=True) >= 1
    assert not list(weights_home.rglob("*.part"))


@pytest.mark.parametrize("location", ["http:", "https:", "http:/", "http://", "https:///", "", "/"])
async def test_a_scheme_removes_nothing(site: Site, location: str) -> None:
    await load(site.url)
    with pytest.raises(InputError, match="cache ls"):
        await cache.rm([location])
    assert stored_by_model() == {"m": SIZE}


async def test_one_wrong_location_keeps_the_others_from_being_removed(site: Site) -> None:
    await load(site.url)
    with pytest.raises(InputError, match="Nothing was removed"):
        await cache.rm([site.url, "http://nowhere.example/m"])
    assert stored_by_model() == {"m": SIZE}
    assert await cache.rm([site.url, site.url]) == 1  # a location that is named twice counts once
    assert stored_by_model() == {}


def test_locations_are_matched_by_whole_parts() -> None:
    url, host = "http://host:80/a/model/model.safetensors", "http://host:80"
    for location in (url, host, f"{host}/", f"{host}/a", f"{host}/a/model/"):
        assert is_below(url, location)
    for location in ("http://host", f"{host}/a/mod", "https://host:80", "host:80", "a", "http:"):
        assert not is_below(url, location)


def drop_privileges() -> None:
    """Root reads and writes everything, whatever its mode, by these two capabilities."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP; refused for other users, as it may


def run_at_home(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("BASCULE_", "HOME"))}
    return subprocess.run(
        [sys.executable, "-m", "bascule", *arguments],
        env={**keep, "HOME": str(home), "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=drop_privileges,
    )


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A home whose cache folder may neither be read nor written."""
    folder = tmp_path / "home" / ".cache" / "bascule"
    (folder / "weights" / "files").mkdir(parents=True)
    folder.chmod(0)
    yield tmp_path / "home"
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "command",
    [
        ("cache", "ls"),
        ("cache", "rm", "--all"),
        ("cache", "verify"),
        ("pull", "all-MiniLM-L6-v2"),
        ("serve", "--port", "0"),
        ("embed", "--tier", "cpu", "x"),
    ],
    ids=" ".join,
)
def test_a_closed_cache_folder_is_an_error_in_words(closed: Path, command: tuple[str, ...]) -> None:
    result = run_at_home(closed, *command)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert str(closed) in result.stderr or "is not on this machine" in result.stderr


def test_a_load_goes_on_without_a_cache(closed: Path, site: Site) -> None:
    """One warning, and the result."""
    from tests.goldens import TINY_BERT

    for file in ("config.json", "tokenizer.json", FILE):
        shutil.copy(TINY_BERT / file, site.folder / file)
    result = run_at_home(closed, "embed", "--model", site.url, "--tier", "cpu", "--json", "w4 w5")
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)[0]) > 0
    assert result.stderr.count("its folder cannot be used (Permission") == 1


@pytest.mark.parametrize("variable", ["BASCULE_CACHE", "BASCULE_WEIGHTS", "BASCULE_REMEMBERED"])
async def test_a_folder_of_no_user_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    from bascule.base import folders

    monkeypatch.setenv(variable, "~no-such-user-here/x")
    ask = {
        "BASCULE_CACHE": folders.cache_folder,
        "BASCULE_WEIGHTS": folders.weights_folder,
        "BASCULE_REMEMBERED": folders.remembered_folder,
    }[variable]
    with pytest.raises(SetupError, match=f"{variable} is '~no-such-user-here/x'"):
        ask()


async def test_with_a_manifest_no_claim_is_believed(site: Site) -> None:
    write_manifest(site.folder)
    site.server.claim(f"m/{FILE}", 10**14)
    store, _ = await load(site.url)
    assert_is(store, 1)
