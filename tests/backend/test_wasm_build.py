"""The committed module of kernels is what its sources say, and asks for nothing but memory."""

from __future__ import annotations

from pathlib import Path

import wasmtime

from bascule.backend.wasm.kernels import module_path
from tools.build_wasm import build

LINKED = {"memory", "__memory_base", "__table_base", "__stack_pointer"}


def test_the_module_is_built_from_its_sources_byte_for_byte(tmp_path: Path) -> None:
    build(tmp_path / "kernels.wasm")
    fresh = (tmp_path / "kernels.wasm").read_bytes()
    assert fresh == Path(module_path()).read_bytes(), "run `make wasm` and commit the module"


def test_the_module_imports_no_function() -> None:
    module = wasmtime.Module(wasmtime.Engine(), Path(module_path()).read_bytes())
    assert {i.name for i in module.imports} <= LINKED
