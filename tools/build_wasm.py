"""Compile web/wasm/*.c to kernels.wasm there, and parts/*.c to parts.wasm for arrays.

Both come out byte for byte the same on every machine. The compiler is PyPI's `ziglang`, a clang and
wasm-ld of a pinned version (constraints.txt). `make wasm` calls this;
tests/backend/test_wasm_build.py holds the committed modules to their sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "web" / "wasm"
COMPILE = (
    "cc", "-target", "wasm32-freestanding", "-c", "-O3", "-msimd128",
    "-ffreestanding", "-fno-builtin", "-fvisibility=hidden", "-ffp-contract=off",
    "-Wall", "-Wextra", "-Werror", "-g0",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Module:
    """A module: where its sources lie below web/wasm, and how they are compiled and linked."""

    name: str
    folder: str
    compile: tuple[str, ...]
    link: tuple[str, ...]


MODULES = (
    Module(
        "kernels.wasm",
        ".",
        # There is no memcpy to call: -fno-builtin keeps the compiler from making one of a loop.
        # Loop strength reduction turns a load's constant offset into an addition of its own.
        ("-std=c17", "-fPIC", "-mllvm", "-disable-lsr"),
        # A side module: Emscripten's loader, and so Pyodide's ctypes, takes it by its dylink.0.
        ("-shared", "--experimental-pic"),
    ),
    # A part has no memory, so that no switch may become a table.
    Module("parts.wasm", "parts", ("-std=gnu17", "-fno-jump-tables"), ()),
)


def build(module: Module, target: Path) -> None:
    """Write a module; RuntimeError with the compiler's words if it refuses."""
    folder = SOURCES / module.folder
    with tempfile.TemporaryDirectory() as scratch:
        objects: list[str] = []
        for source in sorted(folder.glob("*.c")):
            objects.append(str(Path(scratch) / f"{source.stem}.o"))
            _zig(folder, scratch, *COMPILE, *module.compile, source.name, "-o", objects[-1])
        options = ("--no-entry", "--export-dynamic", "-s")
        _zig(folder, scratch, "wasm-ld", *module.link, *options, *objects, "-o", str(target))
    target.chmod(0o644)


def _zig(folder: Path, scratch: str, *arguments: str) -> None:
    # Nothing of an earlier build, nor of the machine, takes part.
    own = {"ZIG_LOCAL_CACHE_DIR": scratch, "ZIG_GLOBAL_CACHE_DIR": scratch}
    ran = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments],
        cwd=folder, env={**os.environ, **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"`zig {' '.join(arguments)}` failed:\n{ran.stderr}")


if __name__ == "__main__":
    for each in MODULES:
        built = SOURCES / each.name
        build(each, built)
        print(f"web/wasm/{each.name}: {built.stat().st_size:,} bytes")
