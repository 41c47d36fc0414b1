"""Facts learned about this machine, kept between runs: small JSON objects by key.

Natively they are files in a folder, in a page records in IndexedDB. Losing them costs only speed:
if the storage is missing, full, blocked or damaged, one warning says so, and entries stay in this
process's memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import warnings
from pathlib import Path
from typing import Any

from bascule.base.entries import LIMITS, Entry, MemoryRemembered, Remembered, RememberedWarning
from bascule.base.folders import remembered_folder, write_whole
from bascule.base.json_object import JsonFault, parse_json

_MAX_ENTRIES = 100


async def open_remembered() -> Remembered:
    """Return this machine's store, or in a page this origin's."""
    if sys.platform == "emscripten":
        from bascule.base.remembered_browser import open_in_page

        return await open_in_page()
    return FolderRemembered(remembered_folder())


class FolderRemembered:
    """A `Remembered` with one file per entry, replaced atomically.

    The oldest entries are removed first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._here = MemoryRemembered()
        self._warned = False

    async def get(self, key: str) -> Entry | None:
        here = await self._here.get(key)
        if here is not None:
            return here
        path = self._path(key)
        try:
            data = _bytes_of(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn(f"{path} cannot be read ({error})")
            return None
        entry = _entry_of(data, key)
        if entry is None:
            self._warn(f"{path} was damaged and has been dropped")
            self._drop(path)
        return entry

    async def put(self, key: str, entry: Entry) -> None:
        path = self._path(key)
        try:
            write_whole(path, json.dumps({"key": key, "value": entry}).encode())
            self._prune()
        except OSError as error:
            self._warn(f"{self._folder} cannot be written ({error})")
            await self._here.put(key, entry)

    async def forget(self, key: str) -> None:
        await self._here.forget(key)
        self._drop(self._path(key))

    async def clear(self) -> None:
        await self._here.clear()
        for path in self._files():
            self._drop(path)

    def _path(self, key: str) -> Path:
        # Hashed: keys contain whatever a driver reports about itself.
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()}.json"

    def _files(self) -> list[Path]:
        try:
            return [p for p in self._folder.iterdir() if p.suffix in (".json", ".part")]
        except OSError:
            return []

    def _prune(self) -> None:
        files = self._files()
        if len(files) > _MAX_ENTRIES:
            oldest = sorted(files, key=lambda p: p.stat().st_mtime)
            for path in oldest[: len(files) - _MAX_ENTRIES]:
                path.unlink(missing_ok=True)

    def _drop(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            self._warn(f"{path} cannot be removed ({error})")

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            message = (
                f"Not everything that Bascule learns about this machine could be stored: {what}."
            )
            warnings.warn(message, RememberedWarning, stacklevel=3)


def _bytes_of(path: Path) -> bytes:
    """Return the bytes of a regular file; empty if it is too large to be ours."""
    # Non-blocking: the name may be that of a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        ours = stat.S_ISREG(status.st_mode) and status.st_size <= LIMITS.nbytes
        return file.read() if ours else b""


def _entry_of(data: bytes, key: str) -> Entry | None:
    try:
        fields = parse_json(data, LIMITS)
    except JsonFault:
        return None
    if not isinstance(fields, dict) or fields.get("key") != key:
        return None
    value: Any = fields.get("value")
    return value if isinstance(value, dict) else None
