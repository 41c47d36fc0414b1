"""The weight cache of a native machine: chunks named by their SHA-256, and a journal of files.

    <weights folder>/chunks/ab/abcd...      a chunk
    <weights folder>/files/<key>.json       a file's version and the hashes of its chunks
    <weights folder>/files/<key>.lock       held while one process fetches the file
    <weights folder>/files/<key>.beat       touched by that process while bytes come
    <weights folder>/files/<key>.use        held, shared, while models of the file are open

Equal chunks of different models are kept once; a half-written one does not have its name's hash.
web/bridge/journal.js keeps the same in a page.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from filelock import AsyncFileLock, FileLock, Timeout

from bascule.folders import weights_folder, write_whole
from bascule.json_object import MANIFEST, JsonFault, parse_json
from bascule.weights.manifest import is_count

_HASH = re.compile(r"[0-9a-f]{64}")
_MOST_NBYTES = 1 << 50
DEFAULT_MOST_NBYTES = 64 << 30


@dataclass(slots=True)
class Entry:
    """A file that was fetched, or begun.

    `hashes` holds "" for a chunk that has not come. `sha256` is the whole file's, once it was
    seen. `missing` notes that the server has no such file.
    """

    url: str
    nbytes: int
    chunk_nbytes: int
    hashes: list[str] = field(default_factory=list[str])
    etag: str = ""
    modified: str = ""
    sha256: str = ""
    missing: bool = False

    def length(self, index: int) -> int:
        """Bytes of a chunk."""
        return min(self.chunk_nbytes, self.nbytes - index * self.chunk_nbytes)


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry in a listing; `used` in seconds since 1970."""

    key: str
    entry: Entry
    stored_nbytes: int
    used: float
    in_use: bool


def key_of(url: str) -> str:
    """The name of a URL's journal file: nothing of the URL itself gets into a path."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def most_nbytes() -> int:
    """BASCULE_CACHE_MOST_GB, else 64 GiB."""
    told = os.environ.get("BASCULE_CACHE_MOST_GB", "")
    try:
        return int(float(told) * 1e9) if told else DEFAULT_MOST_NBYTES
    except ValueError:
        return DEFAULT_MOST_NBYTES


class Journal:
    """The entries and chunks of one folder. OSError where the disk refuses."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or weights_folder()
        self._files = self._folder / "files"
        self._chunks = self._folder / "chunks"

    def load(self, key: str) -> Entry | None:
        """A file's entry; None where there is none, or one that cannot be true."""
        try:
            return _checked(parse_json((self._files / f"{key}.json").read_bytes(), MANIFEST))
        except (OSError, JsonFault):
            return None

    def save(self, key: str, entry: Entry) -> None:
        """Replace a file's entry, whole or not at all."""
        write_whole(self._files / f"{key}.json", json.dumps(asdict(entry)).encode())

    def hold(self, key: str) -> IO[bytes] | None:
        """Note that a file is used now; it is not evicted until what this returns is closed."""
        with suppress(OSError):
            os.utime(self._files / f"{key}.json")
        try:
            handle = (self._files / f"{key}.use").open("wb")
            _flock(handle, exclusive=False)
        except OSError:
            return None
        return handle

    def chunk(self, digest: str) -> bytes | None:
        """A chunk's bytes; None where it is absent or damaged, and a damaged one is dropped."""
        path = self._chunk_path(digest)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() == digest:
            return data
        path.unlink(missing_ok=True)
        return None

    def has_chunk(self, digest: str) -> bool:
        """Whether a chunk is there, sound or not."""
        return bool(digest) and self._chunk_path(digest).is_file()

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a chunk."""
        if not self._chunk_path(digest).is_file():
            write_whole(self._chunk_path(digest), data)

    def drop_chunk(self, digest: str) -> None:
        """Forget a chunk."""
        self._chunk_path(digest).unlink(missing_ok=True)

    def lock(self, key: str) -> AsyncFileLock:
        """What one process holds while it fetches a file."""
        self._files.mkdir(parents=True, exist_ok=True)
        return AsyncFileLock(self._files / f"{key}.lock", run_in_executor=False)

    def beat(self, key: str) -> None:
        """Show those who wait that bytes come."""
        with suppress(OSError):
            (self._files / f"{key}.beat").touch()

    def pulse(self, key: str) -> float:
        """When `beat` was called last, in seconds since 1970."""
        try:
            return (self._files / f"{key}.beat").stat().st_mtime
        except OSError:
            return 0.0

    def entries(self) -> list[Listed]:
        """All files, the least recently used first."""
        found: list[Listed] = []
        for path in self._files.glob("*.json"):
            entry = self.load(path.stem)
            if entry is None:
                continue
            lengths = (entry.length(i) for i, h in enumerate(entry.hashes) if self.has_chunk(h))
            used = path.stat().st_mtime
            in_use = self._loading(path.stem) or self._held(path.stem)
            found.append(Listed(path.stem, entry, sum(lengths), used, in_use))
        return sorted(found, key=lambda listed: listed.used)

    def remove(self, keys: Iterable[str]) -> None:
        """Forget files, and the chunks that no other file has."""
        gone = set(keys)
        dropped: set[str] = set()
        needed: set[str] = set()
        for path in self._files.glob("*.json"):
            entry = self.load(path.stem)
            if entry is not None:
                (dropped if path.stem in gone else needed).update(entry.hashes)
        for key in gone:
            for kind in ("json", "use", "beat"):
                (self._files / f"{key}.{kind}").unlink(missing_ok=True)
        for digest in dropped - needed - {""}:
            self.drop_chunk(digest)

    def make_room(self, nbytes: int, most: int | None = None) -> int:
        """Drop what was used least recently until `nbytes` more fit; never what is in use.

        Returns the bytes that do not fit all the same.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        listed = self.entries()
        ours = sum(each.stored_nbytes for each in listed)
        limit = most_nbytes() if most is None else most
        free = min(limit - ours, shutil.disk_usage(self._folder).free)
        for each in listed:
            if free >= nbytes:
                break
            if not each.in_use and each.stored_nbytes:
                self.remove([each.key])
                free += each.stored_nbytes
        return max(0, nbytes - free)

    def _chunk_path(self, digest: str) -> Path:
        assert _HASH.fullmatch(digest)  # entries and manifests were checked when they were read
        return self._chunks / digest[:2] / digest

    def _held(self, key: str) -> bool:
        try:
            with (self._files / f"{key}.use").open("rb+") as handle:
                _flock(handle, exclusive=True)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _loading(self, key: str) -> bool:
        path = self._files / f"{key}.lock"
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True


def _flock(handle: IO[bytes], *, exclusive: bool) -> None:
    """Shared by those who use a file; OSError where others hold it. Nothing without POSIX."""
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)


def _checked(told: Any) -> Entry | None:
    """An entry from JSON, if it can be true."""
    if not isinstance(told, dict):
        return None
    texts = [told.get(name) for name in ("url", "etag", "modified", "sha256")]
    nbytes, chunk, hashes = told.get("nbytes"), told.get("chunk_nbytes"), told.get("hashes")
    if not is_count(nbytes) or not is_count(chunk):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    if not 0 <= nbytes <= _MOST_NBYTES or chunk < 1024 or not isinstance(hashes, list):
        return None
    if len(hashes) != -(-nbytes // chunk) or not isinstance(told.get("missing"), bool):
        return None
    if not all(isinstance(h, str) and (h == "" or _HASH.fullmatch(h)) for h in hashes):
        return None
    return Entry(**{name: told[name] for name in Entry.__dataclass_fields__})
