"""The committed modules are what their sources say, and ask for nothing but memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from bascule.backend.wasm.assembler import TYPES, Part, section, unsigned, vector
from bascule.backend.wasm.kernels import module_path
from bascule.backend.wasm.parts import parts
from bascule.base import assets
from tools.build_wasm import MODULES, Module, build

LINKED = {"memory", "__memory_base", "__table_base", "__stack_pointer"}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_built_from_its_sources_byte_for_byte(module: Module, tmp_path: Path) -> None:
    build(module, tmp_path / module.name)
    fresh = (tmp_path / module.name).read_bytes()
    committed = assets.path(f"web/wasm/{module.name}").read_bytes()
    assert fresh == committed, "run `make wasm` and commit the module"


def test_the_kernels_import_no_function() -> None:
    module = wasmtime.Module(wasmtime.Engine(), Path(module_path()).read_bytes())
    assert {i.name for i in module.imports} <= LINKED


@pytest.mark.parametrize("part", parts().values(), ids=lambda part: part.name)
def test_a_part_works_where_nothing_else_is(part: Part) -> None:
    # A body that called, or read memory or a global, would name what this module lacks.
    inputs = vector([bytes((TYPES["v128"],))] * part.n_inputs)
    kind = b"\x60" + inputs + vector([bytes((TYPES["v128"],))])
    code = vector([unsigned(len(part.code)) + part.code])
    alone = section(1, vector([kind])) + section(3, vector([b"\0"])) + section(10, code)
    wasmtime.Module.validate(wasmtime.Engine(), b"\0asm\1\0\0\0" + alone)
