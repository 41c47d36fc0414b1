"""The contents of a memory snapshot of Pyodide: imported modules, compiled code, this package's
files.

All of it runs inside Pyodide. web/snapshot-steps.mjs, for node and for a browser that makes its
own, calls `collect` in one Pyodide and `prepare` in a second one, whose memory becomes the
snapshot; web/boot.js calls `resume` when a page boots from it. A snapshot can hold neither
JavaScript objects nor numpy, so nothing here imports them.
"""

from __future__ import annotations

import importlib
import json
import marshal
import random
import sys
import zlib
from collections.abc import Sequence
from importlib.abc import InspectLoader
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from importlib.util import source_hash, spec_from_file_location
from os import environ
from pathlib import Path
from types import CodeType, ModuleType

from bascule.base import assets
from bascule.text.jinja_library import provide_jinja

# Modules of these need the page or shared libraries, and cannot be in a snapshot.
_EXCLUDED = ("js", "pyodide_js", "numpy", "__main__")
_PACKAGE = "bascule"
_TEXTS = (".js", ".wgsl", ".html", ".css")
_OTHERS = (".json", ".wasm", ".zip")

# By path: the hash of the source, and its code as `_packed` returns it. A page that starts reads
# and checks each byte of the snapshot, and needs few of these.
_codes: dict[str, tuple[bytes, bytes]] = {}
# Files that are read by path, not by `assets.text`.
_files: dict[str, bytes] = {}
_key = ""


def collect(folder: str) -> bytes:
    """Return the input of `prepare`, recorded in a Pyodide that has imported all that a page
    imports.

    The names of the loaded modules, and the code of all files of `folder` and of numpy's loaded
    ones. (Compiling leaves garbage in memory, so that memory cannot become the snapshot.)
    """
    loaded = [(name, getattr(module, "__file__", None)) for name, module in sys.modules.items()]
    files = {Path(path) for name, path in loaded if path and name.startswith("numpy")}
    files.update(Path(folder).rglob("*.py"))
    codes: dict[str, tuple[bytes, bytes]] = {}
    for file in sorted(files):
        if file.suffix == ".py" and not file.match("*_native.py") and "server" not in file.parts:
            data = file.read_bytes()
            code = compile(data, str(file), "exec", dont_inherit=True)
            codes[str(file)] = source_hash(data), _packed(code)
    return marshal.dumps(([name for name, _ in loaded], codes))


def prepare(key: str, folder: str, collected: bytes) -> list[str]:
    """Fill this Pyodide's memory: import what can be imported, store code and files of the rest.

    `folder` is where the package is now; a page that resumes does not need it. Returns the names of
    the imported modules.
    """
    global _key
    _key = key
    names, codes = marshal.loads(collected)
    del collected  # what follows takes its place in memory
    provide_jinja()
    _codes.update(codes)
    home = Path(folder) / _PACKAGE
    for file in home.rglob("*"):
        relative = file.relative_to(home).as_posix()
        if file.suffix in _TEXTS and relative.startswith(assets.FOLDERS):
            assets.text(relative)
        elif file.is_file() and file.suffix in _OTHERS:
            _files[str(file)] = file.read_bytes()
    _install(folder)
    imported = [name for name in names if _imported(name)]
    for name in imported:
        _codes.pop(str(getattr(sys.modules[name], "__file__", "")), None)
    return imported


def resume(key: str, environment: str) -> bool:
    """Turn a restored memory into this page's: its environment (a JSON object), new random seeds.

    False if the snapshot was made under another key.
    """
    environ.update(json.loads(environment))
    random.seed()
    for path, data in _files.items():
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    _files.clear()
    return key == _key


def _imported(name: str) -> bool:
    """Import a module if a snapshot can hold it."""
    if name.partition(".")[0] in _EXCLUDED or name.endswith("_browser"):
        return False
    before = set(sys.modules)
    try:
        importlib.import_module(name)
    except ImportError:  # it needs numpy or the page, and is imported there
        for half in set(sys.modules) - before:
            if half.partition(".")[0] in _EXCLUDED:
                del sys.modules[half]
    return name in sys.modules


def _packed(code: CodeType) -> bytes:
    return zlib.compress(marshal.dumps(code))


def _unpacked(packed: bytes) -> CodeType:
    code: CodeType = marshal.loads(zlib.decompress(packed))
    return code


class _CollectedLoader(InspectLoader):
    """Runs the collected code of a module without its file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def get_code(self, fullname: str) -> CodeType:
        return _unpacked(_codes[self._path][1])

    def get_source(self, fullname: str) -> None:
        """None: only the code was collected."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        exec(self.get_code(module.__name__), module.__dict__)


class _PackageFinder:
    """Finds this package's modules among the collected code."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] != _PACKAGE:
            return None
        stem = f"{self._folder}/{name.replace('.', '/')}"
        for file, places in ((f"{stem}/__init__.py", [stem]), (f"{stem}.py", None)):
            if file in _codes:
                return spec_from_file_location(
                    name,
                    file,
                    loader=_CollectedLoader(file),
                    submodule_search_locations=places,
                )
        return None


class _FileLoader(SourceFileLoader):
    """Runs the collected code of a file whose source is unchanged."""

    def get_code(self, fullname: str) -> CodeType | None:
        path = self.get_filename(fullname)
        collected = _codes.get(path)
        if collected is not None and collected[0] == source_hash(self.get_data(path)):
            return _unpacked(collected[1])
        return super().get_code(fullname)


def _install(folder: str) -> None:
    """Use the collected code for all imports from now on."""
    sys.meta_path.insert(0, _PackageFinder(folder))
    finder = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (_FileLoader, [".py"]))
    # Ahead of the standard hook for folders, which is the last.
    sys.path_hooks.insert(len(sys.path_hooks) - 1, finder)
    sys.path_importer_cache.clear()
