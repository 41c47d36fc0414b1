"""The weight cache on a native machine: chunks named by their SHA-256, and a journal of files.

    <weights folder>/chunks/ab/abcd...      a chunk
    <weights folder>/files/<key>.json       a file's version and the hashes of its chunks
    <weights folder>/files/<key>.lock       held while a process fetches the file
    <weights folder>/files/<key>.beat       touched by that process while bytes arrive
    <weights folder>/files/<key>.use        held, shared, while models of the file are open

Equal chunks of different models are stored once; a truncated one does not match its name.
web/bridge/journal.js does the same in a page.
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

from bascule.base.folders import PART, is_abandoned, lock_file, weights_folder, write_whole
from bascule.base.json_object import MANIFEST, JsonFault, parse_json
from bascule.weights.manifest import is_count

_HASH = re.compile(r"[0-9a-f]{64}")
# Other files in the folder are never removed: the user may have chosen one with files in it.
_PART_NAME = re.compile(rf"(\.[0-9a-f.json]{{1,40}}\.[0-9a-f]{{16}}|tmp[0-9a-z_]{{8}})\{PART}")
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}\.json")
_MAX_NBYTES = 1 << 50
# 1 TiB in chunks of 4 MiB. A size that a server announces is checked against it before use.
MAX_CHUNKS = 1 << 18
DEFAULT_MAX_NBYTES = 64 << 30


@dataclass(slots=True)
class Entry:
    """A file that was fetched, completely or in part.

    `hashes` has "" for a missing chunk. `sha256` is the hash of the whole file, once it is known.
    `missing` records that the server has no such file.
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
        """Return the size of a chunk in bytes."""
        return min(self.chunk_nbytes, self.nbytes - index * self.chunk_nbytes)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry in a listing; `used` in seconds since 1970."""

    key: str
    entry: Entry
    stored_nbytes: int
    used: float
    in_use: bool


def key_of(url: str) -> str:
    """Return the name of a URL's journal file; no part of the URL enters a path."""
    return hashlib.sha256(url.encode()).hexdigest()[:32]


def max_nbytes() -> int:
    """Return the cache's limit: BASCULE_CACHE_MOST_GB, else 64 GiB."""
    setting = os.environ.get("BASCULE_CACHE_MOST_GB", "")
    try:
        return int(float(setting) * 1e9) if setting else DEFAULT_MAX_NBYTES
    except (ValueError, OverflowError):
        return DEFAULT_MAX_NBYTES


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes that can be cached: `free` now, `freeable` once all that is not in use is evicted."""

    free: int
    freeable: int


class Journal:
    """The entries and chunks of one folder. Raises OSError from the file system."""

    def __init__(self) -> None:
        self._folder = weights_folder()
        self._files = self._folder / "files"
        self._chunks = self._folder / "chunks"

    def load(self, key: str) -> Entry | None:
        """Read a file's entry; None if it is missing or invalid."""
        try:
            return _checked(parse_json((self._files / f"{key}.json").read_bytes(), MANIFEST))
        except (OSError, JsonFault):
            return None

    def save(self, key: str, entry: Entry) -> None:
        """Replace a file's entry atomically."""
        write_whole(self._files / f"{key}.json", json.dumps(asdict(entry)).encode())

    def hold(self, key: str) -> IO[bytes] | None:
        """Mark a file as in use; it is not evicted until the returned handle is closed."""
        with suppress(OSError):
            os.utime(self._files / f"{key}.json")
        try:
            handle = (self._files / f"{key}.use").open("wb")
            lock_file(handle, exclusive=False)
        except OSError:
            return None
        return handle

    def chunk(self, digest: str) -> bytes | None:
        """Read a chunk; None if it is missing or damaged. A damaged one is deleted."""
        path = self._chunk_path(digest)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() == digest:
            return data
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def has_chunk(self, digest: str) -> bool:
        """Whether a chunk is there; it is not verified."""
        return bool(digest) and os.path.isfile(self._chunk_path(digest))

    def keep(self, digest: str, data: bytes) -> None:
        """Store a chunk."""
        if not self.has_chunk(digest):
            write_whole(self._chunk_path(digest), data)

    def lock(self, key: str) -> AsyncFileLock:
        """Return the lock that a process holds while it fetches a file."""
        self._files.mkdir(parents=True, exist_ok=True)
        return AsyncFileLock(self._files / f"{key}.lock", run_in_executor=False)

    def beat(self, key: str) -> None:
        """Signal to waiting processes that bytes arrive."""
        with suppress(OSError):
            (self._files / f"{key}.beat").touch()

    def pulse(self, key: str) -> float:
        """Return the time of the last `beat`, in seconds since 1970."""
        try:
            return (self._files / f"{key}.beat").stat().st_mtime
        except OSError:
            return 0.0

    def entries(self) -> list[ListedEntry]:
        """List all files, least recently used first."""
        results: list[ListedEntry] = []
        for path in self._entry_paths():
            entry = self.load(path.stem)
            if entry is None:
                continue
            lengths = (entry.length(i) for i, h in enumerate(entry.hashes) if self.has_chunk(h))
            try:
                used = path.stat().st_mtime
            except FileNotFoundError:  # another process has removed it
                continue
            in_use = self._loading(path.stem) or self._held(path.stem)
            results.append(ListedEntry(path.stem, entry, sum(lengths), used, in_use))
        return sorted(results, key=lambda listed: listed.used)

    def remove(self, keys: Iterable[str]) -> int:
        """Remove files, and the chunks that no other file has; return the bytes freed."""
        gone = set(keys)
        dropped: set[str] = set()
        needed: set[str] = set()
        for path in self._entry_paths():
            entry = self.load(path.stem)
            if entry is not None:
                (dropped if path.stem in gone else needed).update(entry.hashes)
        for key in gone:
            for kind in ("json", "use", "beat"):
                (self._files / f"{key}.{kind}").unlink(missing_ok=True)
        return sum(_unlink(self._chunk_path(digest)) for digest in dropped - needed - {""})

    def orphans(self) -> list[Path]:
        """List what killed processes left: unreferenced chunks, .part files, bad entries."""
        # Chunks are listed first: a chunk that is written meanwhile is not in this list, or its
        # entry is already there.
        chunks = [path for folder in _listed(self._chunks) for path in _listed(folder)]
        named: set[str] = set()
        results: list[Path] = []
        for path in self._entry_paths():
            entry = self.load(path.stem)
            if entry is None:
                results.append(path)
            else:
                named.update(entry.hashes)
        for path in [*chunks, *_listed(self._files)]:
            if _PART_NAME.fullmatch(path.name):
                if is_abandoned(path):
                    results.append(path)
            elif _HASH.fullmatch(path.name) and path.name not in named:
                results.append(path)
        return results

    def drop_orphans(self) -> int:
        """Remove what `orphans` lists; return their number."""
        result = self.orphans()
        for path in result:
            _unlink(path)
        return len(result)

    def space(self, limit: int | None = None) -> Space:
        """Return the space within `limit` bytes (default: `max_nbytes`) and on the disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        chunks = [path for folder in _listed(self._chunks) for path in _listed(folder)]
        sizes = {path.name: _nbytes(path) for path in chunks if _is_ours(path.name)}
        ours = sum(sizes.values())
        in_use = {h for each in self.entries() if each.in_use for h in each.entry.hashes}
        held = sum(nbytes for name, nbytes in sizes.items() if name in in_use)
        limit = max_nbytes() if limit is None else limit
        disk = shutil.disk_usage(self._folder).free
        return Space(min(limit - ours, disk), min(limit - held, disk + ours - held))

    def make_room(self, nbytes: int, limit: int | None = None) -> int:
        """Evict orphaned chunks, then the least recently used files, until `nbytes` more fit.

        Files in use are never evicted, and nothing is if that would not be enough. Returns the
        bytes that still do not fit.
        """
        space = self.space(limit)
        if nbytes > space.freeable:
            return nbytes - space.freeable
        if nbytes > space.free and self.drop_orphans():
            space = self.space(limit)
        free = space.free
        for each in self.entries():
            if free >= nbytes:
                break
            if not each.in_use and each.stored_nbytes:
                free += self.remove([each.key])
        return max(0, nbytes - free)

    def _entry_paths(self) -> list[Path]:
        return [path for path in _listed(self._files) if _ENTRY_NAME.fullmatch(path.name)]

    def _chunk_path(self, digest: str) -> Path:
        assert _HASH.fullmatch(digest)  # entries and manifests were checked when they were read
        return self._chunks / digest[:2] / digest

    def _held(self, key: str) -> bool:
        try:
            with (self._files / f"{key}.use").open("rb+") as handle:
                lock_file(handle, exclusive=True)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def _loading(self, key: str) -> bool:
        path = self._files / f"{key}.lock"
        if not os.path.exists(path):
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True


def _is_ours(name: str) -> bool:
    return (_HASH.fullmatch(name) or _PART_NAME.fullmatch(name)) is not None


def _listed(folder: Path) -> list[Path]:
    """List a folder; empty if it does not exist, OSError if it may not be read."""
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _nbytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _unlink(path: Path) -> int:
    """Remove a file; return its size."""
    nbytes = _nbytes(path)
    path.unlink(missing_ok=True)
    return nbytes


def _checked(record: Any) -> Entry | None:
    """Return a valid entry from JSON; None for anything else."""
    if not isinstance(record, dict):
        return None
    texts = [record.get(name) for name in ("url", "etag", "modified", "sha256")]
    nbytes, chunk, hashes = record.get("nbytes"), record.get("chunk_nbytes"), record.get("hashes")
    if not is_count(nbytes) or not is_count(chunk):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    if not 0 <= nbytes <= _MAX_NBYTES or chunk < 1024 or not isinstance(hashes, list):
        return None
    if len(hashes) != -(-nbytes // chunk) or not isinstance(record.get("missing"), bool):
        return None
    if not all(isinstance(h, str) and (h == "" or _HASH.fullmatch(h)) for h in hashes):
        return None
    return Entry(**{name: record[name] for name in Entry.__dataclass_fields__})
