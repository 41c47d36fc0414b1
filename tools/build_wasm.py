"""Compile web/wasm/*.c to web/wasm/kernels.wasm, byte for byte the same on every machine.

The compiler is PyPI's `ziglang`, a clang and wasm-ld of a pinned version (constraints.txt).
`make wasm` calls this; tests/backend/test_wasm_build.py holds the committed module to its sources.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).resolve().parent.parent / "web" / "wasm"
MODULE = SOURCES / "kernels.wasm"
COMPILE = (
    "cc", "-target", "wasm32-freestanding", "-c", "-std=c17", "-O3", "-fPIC", "-msimd128",
    "-ffreestanding", "-fno-builtin", "-fvisibility=hidden", "-ffp-contract=off",
    "-Wall", "-Wextra", "-Werror", "-g0",
    # There is no memcpy to call: -fno-builtin keeps the compiler from making one of a loop.
    # Loop strength reduction turns a load's constant offset into an addition of its own.
    "-mllvm", "-disable-lsr",
)  # fmt: skip
# A side module: Emscripten's loader, and so Pyodide's ctypes, takes it by its dylink.0 section.
LINK = ("wasm-ld", "-shared", "--experimental-pic", "--no-entry", "--export-dynamic", "-s")


def build(module: Path) -> None:
    """Write the module; RuntimeError with the compiler's words if it refuses."""
    with tempfile.TemporaryDirectory() as scratch:
        objects: list[Path] = []
        for source in sorted(SOURCES.glob("*.c")):
            objects.append(Path(scratch) / f"{source.stem}.o")
            _zig(scratch, *COMPILE, source.name, "-o", str(objects[-1]))
        _zig(scratch, *LINK, *map(str, objects), "-o", str(module))
    module.chmod(0o644)


def _zig(scratch: str, *arguments: str) -> None:
    # Nothing of an earlier build, nor of the machine, takes part.
    own = {"ZIG_LOCAL_CACHE_DIR": scratch, "ZIG_GLOBAL_CACHE_DIR": scratch}
    ran = subprocess.run(
        [sys.executable, "-m", "ziglang", *arguments],
        cwd=SOURCES, env={**os.environ, **own}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"`zig {' '.join(arguments)}` failed:\n{ran.stderr}")


if __name__ == "__main__":
    build(MODULE)
    print(f"{MODULE.relative_to(Path.cwd())}: {MODULE.stat().st_size:,} bytes")
