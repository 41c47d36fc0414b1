"""The project's wheel for a page, built anew when the tree has changed."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import weakref
from functools import partial
from importlib import metadata
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from bascule import __version__
from bascule.errors import SetupError

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parent.parent
_WATCHED = ("py", "web", "shaders", "pyproject.toml")


class WheelHouse:
    """Offers one wheel whose name changes with its content, so that no cache serves an old one.

    It lies in a temporary folder, which `close` removes; so does the end of the process.
    """

    def __init__(self, checkout: Path | None = None) -> None:
        self._checkout = checkout or (
            _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() else None
        )
        self._folder: Path | None = None
        self._finalizer: weakref.finalize[[], WheelHouse] | None = None
        self._built: tuple[str, Path] | None = None

    def current(self) -> Path:
        """The wheel of the tree as it is now."""
        state = self._state()
        if self._built is None or self._built[0] != state or not self._built[1].is_file():
            self._built = (state, self._build(state))
        return self._built[1]

    def close(self) -> None:
        """Remove the folder; `current` makes another."""
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
        """Changes with any file that goes into the wheel."""
        if self._checkout is None:
            return __version__
        digest = hashlib.sha256()
        for name in _WATCHED:
            root = self._checkout / name
            for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
                if path.is_file() and "__pycache__" not in path.parts:
                    stat = path.stat()
                    digest.update(f"{path}\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode())
        return digest.hexdigest()[:12]

    def _build(self, state: str) -> Path:
        folder = self._made_folder()
        # A build tag (PEP 427) must start with a digit.
        target = folder / f"bascule-{__version__}-0{state.replace('.', '_')}-py3-none-any.whl"
        made = _pack_checkout(self._checkout, folder) if self._checkout else _pack_installed(folder)
        for old in folder.glob("*.whl"):
            if old != made:
                old.unlink()
        return made.rename(target)


def _pack_checkout(checkout: Path, folder: Path) -> Path:
    try:
        from hatchling.builders.wheel import WheelBuilder
    except ImportError:
        raise SetupError(
            "The package hatchling, which builds the page's wheel, is missing.",
            hint="Run `make setup`, or: pip install hatchling.",
        ) from None
    builder = WheelBuilder(str(checkout))
    return Path(next(builder.build(directory=str(folder), versions=["standard"])))


def _pack_installed(folder: Path) -> Path:
    """Zip the installed files again: a wheel is a zip of them and their RECORD."""
    distribution = metadata.distribution("bascule")
    made = folder / f"bascule-{__version__}-py3-none-any.whl"
    with ZipFile(made, "w", ZIP_STORED) as archive:
        for file in distribution.files or []:
            inside = file.parts[0] in ("bascule", f"bascule-{__version__}.dist-info")
            if inside and "__pycache__" not in file.parts:
                archive.write(str(distribution.locate_file(file)), str(file))
    return made
