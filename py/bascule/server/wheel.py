"""The project's wheel for a page, rebuilt when the tree has changed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections.abc import Container, Generator, Iterator, Mapping
from functools import partial
from importlib import metadata
from operator import attrgetter
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from bascule import __version__
from bascule.errors import SetupError
from bascule.tasks.registry import first_files

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parent.parent
# Files of web/: the bridge, and what a site needs around it; pyproject.toml has the same list.
WEB = (
    "ahead.js",
    "boot.js",
    "bridge",
    "vendor/hash-wasm.LICENSE",
    "vendor/hash-wasm.js",
    "vendor/idb.LICENSE",
    "vendor/idb.js",
    "vendor/jinja2.LICENSE",
    "vendor/jinja2.zip",
    "vendor/tokenizers.LICENSE",
    "vendor/tokenizers.js",
    "wasm/kernels.wasm",
    "wasm/parts.wasm",
    "client-options.js",
    "client.js",
    "early-gpu.js",
    "early.js",
    "offline-client.js",
    "offline.js",
    "page-fetcher.js",
    "prefetch.js",
    "protocol.js",
    "reports",
    "shipped.js",
    "snapshot-maker.js",
    "snapshot-steps.mjs",
    "snapshot-worker.js",
    "snapshots.js",
    "start.html",
    "start.js",
    "worker.js",
)
_WATCHED = ("py", "web", "shaders", "pyproject.toml")


class WheelHouse:
    """Offers one wheel whose name changes with its content, so that no cache serves an old one.

    It is in a temporary folder, which `close` or the end of the process removes.
    """

    def __init__(self, checkout: Path | None = None) -> None:
        self._checkout = checkout or (
            _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None
        )
        self._folder: Path | None = None
        self._finalizer: weakref.finalize[[], WheelHouse] | None = None
        self._built: tuple[str, Path] | None = None

    def current(self) -> Path:
        """Return the wheel of the tree as it is now."""
        state = self._state()
        if self._built is None or self._built[0] != state or not self._built[1].is_file():
            self._built = (state, self._build(state))
        return self._built[1]

    def close(self) -> None:
        """Remove the folder; `current` creates another."""
        if self._finalizer is not None:
            self._finalizer()
        self._finalizer = self._folder = self._built = None

    def _made_folder(self) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="bascule-wheel-"))
            # A finalizer also runs at the end of the process.
            remove = partial(shutil.rmtree, self._folder, ignore_errors=True)
            self._finalizer = weakref.finalize(self, remove)
        return self._folder

    def _state(self) -> str:
        """Return a text that changes with any file of the wheel."""
        if self._checkout is None:
            return __version__
        digest = hashlib.sha256()
        for entry in sorted(_files_below(self._checkout, _WATCHED), key=attrgetter("path")):
            stat = entry.stat()
            digest.update(f"{entry.path}\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode())
        return digest.hexdigest()[:12]

    def _build(self, state: str) -> Path:
        folder = self._made_folder()
        for old in folder.glob("*.whl"):
            old.unlink()
        # A build tag (PEP 427) must start with a digit.
        return _pack(self._checkout, folder, build=f"0{state.replace('.', '_')}")


def _files_below(
    folder: str | Path, names: Container[str] | None = None
) -> Iterator[os.DirEntry[str]]:
    """Yield the files in a folder, of the named entries only, without making a Path of each."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if names is not None and entry.name not in names:
                continue
            if not entry.is_dir():
                yield entry
            elif entry.name != "__pycache__":
                yield from _files_below(entry.path)


def site_index(wheel: Path, snapshot: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return wheel/index.json: the wheel's name, its snapshot, the files that a page prefetches."""
    return {"wheel": wheel.name, "snapshot": snapshot, "ahead": first_files()}


def write_wheel(folder: Path) -> Path:
    """Write the wheel into a folder, and the index.json that names it to web/client.js.

    SetupError if the folder cannot be written.
    """
    checkout = _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = _pack(checkout, folder)
        (folder / "index.json").write_text(json.dumps(site_index(path)) + "\n")
    except OSError as error:
        raise SetupError(
            f"The wheel cannot be written to {folder} ({error.strerror}).",
            hint="Name another folder: bascule wheel DIR.",
        ) from None
    return path


def _pack(checkout: Path | None, folder: Path, build: str = "") -> Path:
    """Zip a checkout's files, or the installed package's; the same files give the same bytes."""
    version = f"{__version__}-{build}" if build else __version__
    target = folder / f"bascule-{version}-py3-none-any.whl"
    files = dict(_sources(checkout))
    info = f"bascule-{__version__}.dist-info"
    texts = {f"{info}/{name}": text.encode() for name, text in _metadata(build).items()}
    record: list[str] = []
    fresh = folder / f".{target.name}.new"
    with ZipFile(fresh, "w", ZIP_DEFLATED) as archive:
        for name in (*sorted(files), *texts):
            data = texts[name] if name in texts else files[name].read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(data)}\n")
            archive.writestr(_entry(name), data)
        archive.writestr(_entry(f"{info}/RECORD"), "".join([*record, f"{info}/RECORD,,\n"]))
    return fresh.replace(target)


def _entry(name: str) -> ZipInfo:
    entry = ZipInfo(name)  # of 1980: the time is no content
    entry.compress_type = ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def _sources(checkout: Path | None) -> Generator[tuple[str, Path]]:
    """Yield each file's name in the wheel and its path."""
    package = checkout / "py" / "bascule" if checkout else _PACKAGE
    root = checkout or _PACKAGE
    for path in _files(package):
        inside = path.relative_to(package)
        if inside.parts[0] not in ("web", "shaders") and "__pycache__" not in inside.parts:
            yield f"bascule/{inside.as_posix()}", path
    for part in (*(f"web/{name}" for name in WEB), "shaders"):
        for path in _files(root / part):
            yield f"bascule/{path.relative_to(root).as_posix()}", path


def _files(path: Path) -> list[Path]:
    return [each for each in (path, *path.rglob("*")) if each.is_file()]


def _metadata(build: str) -> dict[str, str]:
    """Return the files of the wheel's .dist-info, except RECORD."""
    tags = f"Build: {build}\nTag: py3-none-any\n" if build else "Tag: py3-none-any\n"
    wheel = f"Wheel-Version: 1.0\nGenerator: bascule {__version__}\nRoot-Is-Purelib: true\n{tags}"
    texts = {"METADATA": f"Metadata-Version: 2.1\nName: bascule\nVersion: {__version__}\n"}
    try:
        distribution = metadata.distribution("bascule")
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        texts["METADATA"] += "Requires-Dist: numpy>=1.26\n"
    else:
        read = ("METADATA", "entry_points.txt")
        texts |= {name: text for name in read if (text := distribution.read_text(name))}
    return {**texts, "WHEEL": wheel}
