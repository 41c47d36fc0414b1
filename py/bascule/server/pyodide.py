"""Pyodide for the dev server: fetched or unpacked into the cache folder, verified by SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol
from urllib.parse import urljoin
from zipfile import BadZipFile, ZipFile

import httpx

from bascule.base.arguments import did_you_mean
from bascule.base.folders import cache_folder
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import HashMismatchError, InputError, SetupError, SourceError

PYODIDE_VERSION = "0.27.7"
RELEASE = f"https://cdn.jsdelivr.net/pyodide/v{PYODIDE_VERSION}/full/"
LOCK = "pyodide-lock.json"
# The files of the release that a page needs. The second lock file is a part of the first: wheels of
# the package index that contain Pyodide have it.
KNOWN_SHA256 = {
    "pyodide.mjs": ("04c052c815abb0bf2981fa38c2dfa58e3120ee5288c956df2b2a15e301782c5f",),
    "pyodide.asm.js": ("6b4c90de5b7172873f04f21884d0e9d2274e305fe32116558fe3e4fbe3618d51",),
    "pyodide.asm.wasm": ("a50dd1843f805a0b7c45b61037ee0d7b26dfe85efe0e18ef95a34ad24e401f5f",),
    "python_stdlib.zip": ("16611534726e5d8ac2bd8f926410b2dcb8d6f49aa24913463533b457a2115c16",),
    LOCK: (
        "9c45b916001a750f4102fc287494f3eab215909c7535c626a20db80fd6333e2c",
        "fb0ad28408332c4ee335cdca6add0585329b1594d0e923a6f83bea27ee773f29",
    ),
    "numpy-2.0.2-cp312-cp312-pyodide_2024_0_wasm32.whl": (
        "ebb61241d962b98b21597d7ce43b67668a6d5bab3acec4fbe958657320d7cd08",
    ),
    "micropip-0.9.0-py3-none-any.whl": (
        "034f22763607744f982d2911170c50b496a38b8ba0535e5a09618475b1d7b051",
    ),
    "packaging-24.2-py3-none-any.whl": (
        "fbf6a5ace596eb8e28fe0089ecfc0bca2eb3930563e9ca06acb98ea5302b99f7",
    ),
}
MAX_FILE_NBYTES = 64 << 20
MAX_ARCHIVE_NBYTES = 1 << 30


def pyodide_folder() -> Path:
    """Return the folder of `fetch_pyodide`; SetupError if it does not exist."""
    folder = _home()
    if not os.path.isfile(folder / "pyodide.mjs"):  # False where it may not be read
        raise SetupError(
            f"Pyodide {PYODIDE_VERSION} is not in {folder}.", hint="Fetch it: bascule pyodide."
        )
    return folder


async def fetch_pyodide(
    source: str | None, progress: ProgressCallback, packages: Sequence[str] = ()
) -> Path:
    """Fetch Pyodide, or unpack it from an archive or a folder; return its folder.

    `source` is a path or a URL (a folder's ends in "/"), by default Pyodide's release. `packages`
    are names of its distribution ("matplotlib") that are fetched as well, with their dependencies.
    InputError for a missing path or an unknown package, SourceError for what cannot be read or
    lacks a file, HashMismatchError for a file that is not the release's, SetupError if the cache
    folder cannot be written. An earlier Pyodide stays until the new one is complete.
    """
    home = _home()
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        return await _install(home, source or RELEASE, progress, packages)
    except OSError as error:
        raise SetupError(
            f"Pyodide cannot be written to {home.parent} ({error.strerror}).",
            hint="BASCULE_CACHE names another cache folder.",
        ) from None


async def _install(
    home: Path, source: str, progress: ProgressCallback, packages: Sequence[str]
) -> Path:
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        fresh = Path(scratch) / "pyodide"
        fresh.mkdir()
        files = await _open(source, Path(scratch))
        await files.prepare(KNOWN_SHA256)
        lock = _checked(LOCK, await files.read(LOCK), files.location, KNOWN_SHA256[LOCK])
        more = package_files(lock, packages)
        await files.prepare(more)
        wanted = {**KNOWN_SHA256, **more}
        for done, (name, digests) in enumerate(wanted.items()):
            progress(Progress("pyodide", done, len(wanted)))
            data = await files.read(name)
            (fresh / name).write_bytes(_checked(name, data, files.location, digests))
        (fresh / "complete").write_text("\n".join(packages), encoding="utf-8")
        shutil.rmtree(home, ignore_errors=True)
        fresh.rename(home)
    progress(Progress("pyodide", len(wanted), len(wanted)))
    return home


def package_files(lock: bytes, packages: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the files of packages and of all their dependencies, with their SHA-256.

    `lock` is a verified pyodide-lock.json. InputError for a package that it does not have.
    """
    known: dict[str, dict[str, Any]] = json.loads(lock)["packages"]
    results: dict[str, tuple[str, ...]] = {}
    remaining = list(packages)
    while remaining:
        name = remaining.pop()
        if name not in known:
            hint = did_you_mean(name, tuple(known))
            raise InputError("packages", "packages of Pyodide", repr(name[:200]), hint=hint)
        package = known[name]
        if package["file_name"] not in results:
            results[package["file_name"]] = (package["sha256"],)
            remaining += package["depends"]
    return results


class _Files(Protocol):
    """The files of a Pyodide distribution."""

    location: str

    async def prepare(self, names: Collection[str]) -> None:
        """Find these in one pass, unless files are read one by one."""
        ...

    async def read(self, name: str) -> bytes:
        """Return a whole file; SourceError if it is missing."""
        ...


class _Folder:
    def __init__(self, folder: Path) -> None:
        self.location = str(folder)
        self._folder = folder

    async def prepare(self, names: Collection[str]) -> None:
        pass

    async def read(self, name: str) -> bytes:
        try:
            return await asyncio.to_thread((self._folder / name).read_bytes)
        except OSError as error:
            raise SourceError(f"{self.location}/{name}", error.strerror or str(error)) from None


class _Site:
    def __init__(self, url: str) -> None:
        self.location = url

    async def prepare(self, names: Collection[str]) -> None:
        pass

    async def read(self, name: str) -> bytes:
        data = bytearray()
        async for part in _body(urljoin(self.location, name), MAX_FILE_NBYTES):
            data += part
        return bytes(data)


class _Archive:
    """A zip (such as a wheel) or tar archive, with the files in any one folder of it.

    It is read, never extracted: no path of its own is used.
    """

    def __init__(self, path: Path, location: str) -> None:
        self.location = location
        self._path = path
        self._files: dict[str, bytes] = {}

    async def prepare(self, names: Collection[str]) -> None:
        if not names:
            return
        try:
            await asyncio.to_thread(self._unpack, names)
        except (tarfile.TarError, BadZipFile, EOFError, OSError, ValueError) as error:
            raise SourceError(self.location, f"it cannot be unpacked ({error})") from None

    async def read(self, name: str) -> bytes:
        if name not in self._files:
            raise SourceError(self.location, f"it has no {name}", hint="Is it all of Pyodide?")
        return self._files[name]

    def _unpack(self, names: Collection[str]) -> None:
        for name, nbytes, read in _members(self._path):
            if name in names and name not in self._files and nbytes <= MAX_FILE_NBYTES:
                self._files[name] = read()


async def _open(source: str, scratch: Path) -> _Files:
    if source.startswith(("http://", "https://")):
        if source.endswith("/"):
            return _Site(source)
        target = scratch / "archive"
        with target.open("wb") as sink:
            async for part in _body(source, MAX_ARCHIVE_NBYTES):
                sink.write(part)
        return _Archive(target, source)
    path = Path(source).expanduser()
    if path.is_dir():
        return _Folder(path)
    if not path.is_file():
        raise InputError("pyodide --from", "an archive, a folder or a URL", repr(source[:200]))
    return _Archive(path, source)


async def _body(url: str, max_nbytes: int) -> AsyncGenerator[bytes]:
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=60) as client,
            client.stream("GET", url) as response,
        ):
            if response.status_code != 200:
                raise SourceError(url, f"the server answered {response.status_code}")
            nbytes = 0
            async for part in response.aiter_bytes():
                nbytes += len(part)
                if nbytes > max_nbytes:
                    raise SourceError(url, f"it is larger than {max_nbytes:,} bytes")
                yield part
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SourceError(url, str(error) or type(error).__name__) from None


def _members(path: Path) -> Generator[tuple[str, int, Callable[[], bytes]]]:
    """Yield of each file in an archive its last name, its size and a function that reads it."""
    if _is_zip(path):
        with ZipFile(path) as archive:
            for info in archive.infolist():
                yield PurePosixPath(info.filename).name, info.file_size, partial(archive.read, info)
        return
    with tarfile.open(path, "r:*") as archive:
        for member in archive:
            handle = archive.extractfile(member) if member.isreg() else None
            if handle is not None:
                yield PurePosixPath(member.name).name, member.size, handle.read


def _is_zip(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(4) == b"PK\x03\x04"


def _checked(name: str, data: bytes, location: str, digests: Sequence[str]) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    if digest not in digests:
        raise HashMismatchError(
            f"{location} ({name})",
            f"its SHA-256 is {digest}, which is not that of Pyodide {PYODIDE_VERSION}",
            hint="Fetch it from another place: bascule pyodide --from FILE_OR_URL.",
        )
    return data


def _home() -> Path:
    return cache_folder() / "pyodide" / PYODIDE_VERSION
