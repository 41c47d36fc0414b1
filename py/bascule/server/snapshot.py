"""Memory snapshots of a booted Pyodide: made by node, stored in the cache folder by content."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from bascule.base import assets
from bascule.base.folders import cache_folder, write_whole
from bascule.errors import SetupError
from bascule.server.wheel import site_index, write_wheel

_SCRIPT = Path(__file__).with_name("snapshot.mjs")
# Pyodide's own files; its lock file names numpy's wheel by hash.
_PYODIDE_FILES = (
    "pyodide.mjs",
    "pyodide.asm.js",
    "pyodide.asm.mjs",
    "pyodide.asm.wasm",
    "python_stdlib.zip",
    "pyodide-lock.json",
)
# Each change of the package makes another one, and several copies of it may be in use at once.
_MAX_KEPT = 8
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a page needs to know of a snapshot before it boots from it (wheel/index.json).

    `sha256` and `nbytes` are of the snapshot itself, which `file` may contain compressed by gzip.
    """

    file: str
    key: str
    sha256: str
    nbytes: int
    pyodide: str


def snapshots_folder() -> Path:
    """Return the folder of snapshots."""
    return cache_folder() / "snapshots"


def find_snapshot(pyodide: Path, wheel: Path) -> Snapshot | None:
    """Return the snapshot of this Pyodide with this wheel, if it exists."""
    return _stored(_key(pyodide, wheel))


def make_snapshot(pyodide: Path, wheel: Path) -> Snapshot:
    """Return the snapshot of this Pyodide with this wheel, made now if necessary (about 10 s).

    SetupError if node is missing or Pyodide does not boot in it.
    """
    node = shutil.which("node")
    if node is None:
        raise SetupError(
            "There is no node, which boots Pyodide for a snapshot.", hint="Install Node.js 20."
        )
    folder = snapshots_folder()
    folder.mkdir(parents=True, exist_ok=True)
    key = _key(pyodide, wheel)
    with FileLock(folder / "lock"):
        result = _stored(key)
        if result is None:
            steps = assets.path("web") / "snapshot-steps.mjs"
            result = _make([node, *map(str, (_SCRIPT, steps, pyodide, wheel)), key], key)
            _remove_old()
    return result


def write_site_snapshot(pyodide: Path, folder: Path) -> Path:
    """Write a site's wheel/ folder: the wheel, its snapshot (gzip), index.json.

    SetupError if the snapshot cannot be made or the folder cannot be written.
    """
    wheel = write_wheel(folder)
    snapshot = make_snapshot(pyodide, wheel)
    data = (snapshots_folder() / snapshot.file).read_bytes()
    shipped = replace(snapshot, file=f"{snapshot.file}.gz")
    index = site_index(wheel, asdict(shipped))
    try:
        write_whole(folder / shipped.file, gzip.compress(data, 6, mtime=0))
        write_whole(folder / "index.json", json.dumps(index, indent=2).encode())
        for name in (shipped.file, "index.json"):
            (folder / name).chmod(0o644)  # a web server may run as another user
    except OSError as error:
        raise SetupError(
            f"{folder} cannot be written ({error.strerror}).", hint="Name another folder."
        ) from None
    return folder / shipped.file


class BackgroundMaker:
    """Makes one snapshot at a time in a thread of its own, while a server responds."""

    def __init__(self, pyodide: Path) -> None:
        self._pyodide = pyodide
        self._lock = threading.Lock()
        self._tried: dict[Path, threading.Thread] = {}

    def snapshot(self, wheel: Path) -> Snapshot | None:
        """Return the wheel's snapshot if it exists; else None, and it is made for the next time.

        One that cannot be made is not tried again: pages then boot without it.
        """
        result = find_snapshot(self._pyodide, wheel)
        if result is None:
            with self._lock:
                if wheel not in self._tried:
                    thread = threading.Thread(target=self._make, args=(wheel,), daemon=True)
                    self._tried[wheel] = thread
                    thread.start()
        return result

    def join(self) -> None:
        """Wait until everything that was started has ended."""
        for thread in list(self._tried.values()):
            thread.join()

    def _make(self, wheel: Path) -> None:
        with suppress(SetupError, OSError):
            make_snapshot(self._pyodide, wheel)


def _key(pyodide: Path, wheel: Path) -> str:
    digest = hashlib.sha256(_content(wheel))
    for name in _PYODIDE_FILES:
        if (pyodide / name).is_file():
            digest.update(name.encode() + _content(pyodide / name))
    return digest.hexdigest()[:32]


_contents: dict[tuple[Path, int, int], bytes] = {}


def _content(path: Path) -> bytes:
    """Return the SHA-256 of a file, computed again when its size or time changes."""
    stat = path.stat()
    state = path, stat.st_mtime_ns, stat.st_size
    if state not in _contents:
        _contents[state] = hashlib.sha256(path.read_bytes()).digest()
    return _contents[state]


def _stored(key: str) -> Snapshot | None:
    record = snapshots_folder() / f"{key}.json"
    try:
        result = Snapshot(**json.loads(record.read_text("utf-8")))
        complete = (record.parent / result.file).stat().st_size == result.nbytes
    except (OSError, ValueError, TypeError):
        return None
    if not complete:
        return None
    with suppress(OSError):
        os.utime(record)  # when it was last used
    return result


def _make(command: list[str], key: str) -> Snapshot:
    folder = snapshots_folder()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        target = Path(scratch) / "snapshot"
        version = _run([*command, str(target)])
        data = target.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        # Two of the same key differ, and caches go by the name.
        result = Snapshot(f"{key}-{digest[:8]}.snapshot", key, digest, len(data), version)
        target.rename(folder / result.file)
    write_whole(folder / f"{key}.json", json.dumps(asdict(result)).encode())
    return result


def _run(command: list[str]) -> str:
    """Run the script; return Pyodide's version."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
        words = "\n".join(done.stderr.strip().splitlines()[-8:])[-500:]
        if done.returncode == 0:
            return str(json.loads(done.stdout)["version"])
    except subprocess.TimeoutExpired:
        words = f"it took more than {_TIMEOUT_S} s"
    raise SetupError(
        f"Pyodide in {command[3]} gave no snapshot: {words}",
        hint="Is it a complete Pyodide, of version 0.27 or later?",
    )


def _remove_old() -> None:
    """Keep only the most recently used."""
    records = sorted(snapshots_folder().glob("*.json"), key=lambda path: path.stat().st_mtime)
    for record in records[:-_MAX_KEPT]:
        for file in record.parent.glob(f"{record.stem}*.snapshot"):
            file.unlink(missing_ok=True)
        record.unlink(missing_ok=True)
