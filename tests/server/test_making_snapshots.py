"""Snapshots of Pyodide: made by node, found again under their key, replaced and removed."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bascule.errors import SetupError
from bascule.server import snapshot
from bascule.server.run import pyodide_folder
from bascule.server.snapshot import (
    BackgroundMaker,
    find_snapshot,
    make_snapshot,
    snapshots_folder,
    write_site_snapshot,
)

NPM_PYODIDE = Path(__file__).resolve().parents[2] / "node_modules" / "pyodide"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def broken(tmp_path: Path) -> tuple[Path, Path]:
    """A Pyodide that cannot boot, and a wheel."""
    (tmp_path / "pyodide").mkdir()
    (tmp_path / "pyodide" / "pyodide.mjs").write_text('throw new Error("no such wasm");')
    wheel = tmp_path / "bascule-0-py3-none-any.whl"
    wheel.write_bytes(b"wheel")
    return tmp_path / "pyodide", wheel


def test_a_pyodide_that_does_not_boot(cache: Path, broken: tuple[Path, Path]) -> None:
    with pytest.raises(SetupError, match="no such wasm"):
        make_snapshot(*broken)
    assert find_snapshot(*broken) is None
    assert [path.name for path in snapshots_folder().iterdir()] == ["lock"]


def test_no_node(cache: Path, broken: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(cache))
    with pytest.raises(SetupError, match="node"):
        make_snapshot(*broken)


def keep(pyodide: Path, wheel: Path, content: bytes) -> None:
    """Put a snapshot where `make_snapshot` leaves one."""
    key = snapshot._key(pyodide, wheel)
    folder = snapshots_folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{key}.snapshot").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    record = {"file": f"{key}.snapshot", "key": key, "sha256": digest, "pyodide": "0"}
    (folder / f"{key}.json").write_text(json.dumps({**record, "nbytes": len(content)}))


def test_the_key_is_of_pyodide_and_wheel(cache: Path, broken: tuple[Path, Path]) -> None:
    pyodide, wheel = broken
    keep(pyodide, wheel, b"snapshot")
    result = find_snapshot(pyodide, wheel)
    assert result
    assert make_snapshot(pyodide, wheel) == result
    wheel.write_bytes(b"another wheel")
    assert find_snapshot(pyodide, wheel) is None
    wheel.write_bytes(b"wheel")
    (pyodide / "pyodide-lock.json").write_text("{}")
    assert find_snapshot(pyodide, wheel) is None


@pytest.mark.parametrize("record", [b"", b"[]", b"{}", b'{"file": 1}', b"\xff"])
def test_a_damaged_record_is_no_snapshot(
    cache: Path, broken: tuple[Path, Path], record: bytes
) -> None:
    keep(*broken, b"snapshot")
    next(snapshots_folder().glob("*.json")).write_bytes(record)
    assert find_snapshot(*broken) is None


def test_a_truncated_file_is_no_snapshot(cache: Path, broken: tuple[Path, Path]) -> None:
    keep(*broken, b"snapshot")
    next(snapshots_folder().glob("*.snapshot")).write_bytes(b"snap")
    assert find_snapshot(*broken) is None


def test_those_used_last_are_kept(cache: Path, broken: tuple[Path, Path]) -> None:
    pyodide, _ = broken
    wheels = [cache.parent / f"{number}.whl" for number in range(10)]
    for number, wheel in enumerate(wheels):
        wheel.write_bytes(b"%d" % number)
        keep(pyodide, wheel, b"snapshot")
        record = snapshots_folder() / f"{snapshot._key(pyodide, wheel)}.json"
        os.utime(record, (number, number))
    assert find_snapshot(pyodide, wheels[0])
    snapshot._remove_old()
    assert len(list(snapshots_folder().glob("*.snapshot"))) == 8
    assert [bool(find_snapshot(pyodide, wheel)) for wheel in wheels] == [True] + 2 * [False] + 7 * [
        True
    ]


def test_one_that_cannot_be_made_is_tried_once(
    cache: Path, broken: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []
    run = snapshot._run

    def counted(command: list[str]) -> str:
        runs.append(command)
        return run(command)

    monkeypatch.setattr(snapshot, "_run", counted)
    maker = BackgroundMaker(broken[0])
    for _ in range(3):
        assert maker.snapshot(broken[1]) is None
    while not runs:
        time.sleep(0.01)
    maker.join()
    assert maker.snapshot(broken[1]) is None
    assert len(runs) == 1


def test_a_site_gets_wheel_snapshot_and_index(tmp_path: Path) -> None:
    """With the set-up's own Pyodide; its snapshot is in the user's cache folder afterwards."""
    written = write_site_snapshot(pyodide_folder(), tmp_path)
    index = json.loads((tmp_path / "index.json").read_text())
    assert (tmp_path / index["wheel"]).is_file()
    data = gzip.decompress(written.read_bytes())
    assert index["snapshot"]["file"] == written.name
    assert index["snapshot"]["nbytes"] == len(data)
    assert index["snapshot"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert written.stat().st_size < len(data) / 2
    # A visit reads, hashes and copies each byte.
    assert len(data) < 32_000_000
    assert any(data[-(1 << 16) :])
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_a_pyodide_without_numpy(tmp_path: Path, cache: Path) -> None:
    """The one of the npm package."""
    written = write_site_snapshot(NPM_PYODIDE, tmp_path / "wheel")
    data = gzip.decompress(written.read_bytes())
    assert b"bascule.page.worker_browser" in data
    index = json.loads((tmp_path / "wheel" / "index.json").read_text())
    assert index["snapshot"]["pyodide"].startswith("314.")


def test_a_folder_that_cannot_be_written() -> None:
    with pytest.raises(SetupError, match="cannot be written"):
        write_site_snapshot(pyodide_folder(), Path("/dev/null/wheel"))


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "pyodide").mkdir()
    result = subprocess.run(
        [sys.executable, "-m", "bascule", "snapshot", str(tmp_path / "site"), "--pyodide",
         str(tmp_path / "pyodide")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    assert "pyodide.mjs" in result.stderr
