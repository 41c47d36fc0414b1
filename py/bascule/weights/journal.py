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

from bascule.base.folders import PART, is_abandoned, lock_file, weights_folder, write_whole
from bascule.base.json_object import MANIFEST, JsonFault, parse_json
from bascule.weights.manifest import is_count

_HASH = re.compile(r"[0-9a-f]{64}")
# Nothing else in the folder is ever removed: it may be one that the user has other files in.
_PART_NAME = re.compile(rf"(\.[0-9a-f.json]{{1,40}}\.[0-9a-f]{{16}}|tmp[0-9a-z_]{{8}})\{PART}")
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}\.json")
_MOST_NBYTES = 1 << 50
# 1 TiB by chunks of 4 MiB: what a server claims is compared with it before anything is sized by it.
MOST_CHUNKS = 1 << 18
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
    setting = os.environ.get("BASCULE_CACHE_MOST_GB", "")
    try:
        return int(float(setting) * 1e9) if setting else DEFAULT_MOST_NBYTES
    except (ValueError, OverflowError):
        return DEFAULT_MOST_NBYTES


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes that could be cached: `free` now, `most` with all evicted that is not in use."""

    free: int
    most: int


class Journal:
    """The entries and chunks of one folder. OSError where the disk refuses."""

    def __init__(self) -> None:
        self._folder = weights_folder()
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
            lock_file(handle, exclusive=False)
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
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return None

    def has_chunk(self, digest: str) -> bool:
        """Whether a chunk is there, sound or not."""
        return bool(digest) and os.path.isfile(self._chunk_path(digest))

    def keep(self, digest: str, data: bytes) -> None:
        """Keep a chunk."""
        if not self.has_chunk(digest):
            write_whole(self._chunk_path(digest), data)

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
        results: list[Listed] = []
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
            results.append(Listed(path.stem, entry, sum(lengths), used, in_use))
        return sorted(results, key=lambda listed: listed.used)

    def remove(self, keys: Iterable[str]) -> int:
        """Forget files, and the chunks that no other file has; bytes of these chunks."""
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
        """What killed processes have left: chunks that no entry names, .part files, bad entries."""
        # Chunks are listed first: one that is written meanwhile has its entry by then, or is not
        # listed.
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
        """Remove what `orphans` lists; how many."""
        result = self.orphans()
        for path in result:
            _unlink(path)
        return len(result)

    def space(self, most: int | None = None) -> Space:
        """What could be cached within `most` bytes (default: `most_nbytes`) and on the disk."""
        self._folder.mkdir(parents=True, exist_ok=True)
        chunks = [path for folder in _listed(self._chunks) for path in _listed(folder)]
        sizes = {path.name: _nbytes(path) for path in chunks if _is_ours(path.name)}
        ours = sum(sizes.values())
        in_use = {h for each in self.entries() if each.in_use for h in each.entry.hashes}
        held = sum(nbytes for name, nbytes in sizes.items() if name in in_use)
        limit = most_nbytes() if most is None else most
        disk = shutil.disk_usage(self._folder).free
        return Space(min(limit - ours, disk), min(limit - held, disk + ours - held))

    def make_room(self, nbytes: int, most: int | None = None) -> int:
        """Evict orphaned chunks, then the least recently used files, until `nbytes` more fit.

        Nothing that is in use, and nothing at all if that would not be enough. Returns the bytes
        that do not fit all the same.
        """
        space = self.space(most)
        if nbytes > space.most:
            return nbytes - space.most
        if nbytes > space.free and self.drop_orphans():
            space = self.space(most)
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
    """What a folder holds; nothing if it is not there, OSError if it may not be read."""
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
    """Remove a file; the bytes that it had."""
    nbytes = _nbytes(path)
    path.unlink(missing_ok=True)
    return nbytes


def _checked(record: Any) -> Entry | None:
    """An entry from JSON, if it can be true."""
    if not isinstance(record, dict):
        return None
    texts = [record.get(name) for name in ("url", "etag", "modified", "sha256")]
    nbytes, chunk, hashes = record.get("nbytes"), record.get("chunk_nbytes"), record.get("hashes")
    if not is_count(nbytes) or not is_count(chunk):
        return None
    if not all(isinstance(text, str) for text in texts):
        return None
    if not 0 <= nbytes <= _MOST_NBYTES or chunk < 1024 or not isinstance(hashes, list):
        return None
    if len(hashes) != -(-nbytes // chunk) or not isinstance(record.get("missing"), bool):
        return None
    if not all(isinstance(h, str) and (h == "" or _HASH.fullmatch(h)) for h in hashes):
        return None
    return Entry(**{name: record[name] for name in Entry.__dataclass_fields__})
