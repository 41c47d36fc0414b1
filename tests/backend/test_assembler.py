"""Instructions in words become another assembler's bytes; loops write their result alone."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import wasmtime

import bascule.array as xp
from bascule.array.dtypes import named
from bascule.array.loop_rows import text_of
from bascule.array.loop_stages import LoopNest, Operand, Operation
from bascule.backend.deviceless import Loop
from bascule.backend.wasm import kernels_native
from bascule.backend.wasm.assembler import CODES, Function
from bascule.backend.wasm.inlining import parse_function
from bascule.backend.wasm.kernels_native import open_native
from bascule.backend.wasm.parts import parts

# What stands after an instruction: in our words, and in those of WebAssembly's text format.
AFTER = {
    "_none": ("", ""),
    "_block": ("", ""),
    "_index": ("0", "0"),
    "_number": ("-1234567", "-1234567"),
    "_address": ("300", "offset=300 align=1"),
    "_lane": ("1", "1"),
    "_address_lane": ("300 1", "offset=300 align=1 1"),
    "_lanes": ("0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 31",) * 2,
    "_words_of": ("0x80000001", "i32x4 0x80000001 0x80000001 0x80000001 0x80000001"),
    "_floats_of": ("-1.5", "f32x4 -1.5 -1.5 -1.5 -1.5"),
    "_doubles_of": ("-1.5", "f64x2 -1.5 -1.5"),
    "_lanes_of": ("0 1 -2 0x80000001", "i32x4 0 1 -2 0x80000001"),
}
STRUCTURE = ("block", "loop", "if", "else", "end", "call")


@pytest.mark.parametrize("word", CODES)
def test_bytes_are_those_of_another_assembler(word: str) -> None:
    ours, text = AFTER[CODES[word][1].__name__]
    if word in STRUCTURE:
        return  # in every loop's module, which wasmtime validates
    name = "v128.const" if word.endswith("x4.const") or word == "f64x2.const" else word
    expected = wasmtime.wat2wasm(
        f"(module (memory 1) (func (param i32) {name} {text} unreachable))"
    )
    mine = Function(f"{word} {ours}").code().removesuffix(b"\x0b")
    assert bytes((*mine, 0x00, 0x0B)) in expected  # unreachable, end


@pytest.mark.parametrize("body", ["f32x4.power", "local.get $nobody", "i32.const x"])
def test_no_other_word_becomes_bytes(body: str) -> None:
    with pytest.raises((KeyError, ValueError)):
        Function(body).module()


def test_parts_without_branches_stand_in_the_loop_and_others_are_called() -> None:
    known = parts()
    bodies = {name: parse_function(part.code) for name, part in known.items()}
    branching = {name for name, body in bodies.items() if body is None}
    assert branching == {"sin_f", "cos_f", "tan_f", "philox"}
    for name, body in bodies.items():
        text = " ".join(["v128.const 1 2 3 4"] * known[name].n_inputs)
        function = Function(f"{text} call ${name} local.set $x", {"x": "v128"}, [known[name]])
        module = function.module()
        wasmtime.Module.validate(wasmtime.Engine(), module)
        assert (known[name].code in module) == (body is None), name


def test_a_constant_of_inlined_parts_is_made_once() -> None:
    exp = parts()["exp_f"]
    once, twice = (
        Function(f"local.get $x {'call $exp_f ' * n} local.set $x", {"x": "v128"}, [exp]).code()
        for n in (1, 2)
    )
    constant = struct.pack("<f", 12582912) * 4
    assert exp.code.count(constant) >= 1
    assert once.count(constant) == twice.count(constant) == 1


@pytest.mark.parametrize(
    "code",
    [
        "00 2000 280200 0b",  # a load
        "00 2000 1001 0b",  # a call
        "00 2000 0f 0b",  # a return
        "00 0240 0b 2000 0b",  # a block
        "00 2000 fd0004000b",  # a load of a vector
    ],
)
def test_functions_that_are_no_straight_line_are_not_inlined(code: str) -> None:
    assert parse_function(bytes.fromhex(code.replace(" ", ""))) is None


def copying(dtype: str, n_kept: int) -> bytes:
    """A loop's module that copies vectors along the last axis, of `n_kept` others."""
    kind = named(dtype)
    operations = (Operation("copy", (0,), kind),)
    return text_of(LoopNest((Operand(kind, True),), operations, n_kept, 0, False)).module()


def copied(x: Any, run: Loop) -> Any:
    """An array by way of a loop that copies it."""
    result = np.empty_like(x)
    run(result, [x], (x.size,))
    return result


def test_loops_outside_a_page_use_the_same_memory_again() -> None:
    kernels = open_native()
    run = kernels.load(copying("float32", 0))
    rng = np.random.default_rng()
    before = kernels.used_nbytes
    for n in rng.integers(200_000, 260_000, 50):
        x = rng.standard_normal(n).astype(np.float32)
        assert np.array_equal(copied(x, run), x)
    assert kernels.used_nbytes - before <= 2 * (1 << 20) + 4096  # in and out, and params


async def test_numpy_computes_what_the_loops_memory_cannot_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng().standard_normal(5_000_000).astype(np.float32)
    device = xp.device("wasm")
    await xp.sum(xp.asarray(np.ones(20_000, np.float32), device=device) * 2.0).numpy()
    monkeypatch.setattr(kernels_native, "_MAX_PAGES", 0)
    result = await xp.sum(xp.asarray(x, device=device) * 2.0).numpy()
    assert abs(result - 2 * x.astype(np.float64).sum()) < 2


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "bool"])
@pytest.mark.parametrize("columns", [4, 5, 6, 7, 8, 15, 16, 17, 31, 32, 33, 41])
def test_a_loop_writes_its_result_and_nothing_beside_it(dtype: str, columns: int) -> None:
    rows, kind = 3, named(dtype)
    size = rows * columns * kind.itemsize
    module = copying(dtype, 1)
    store = wasmtime.Store()
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    loaded = wasmtime.Instance(store, wasmtime.Module(store.engine, module), [memory])
    run: Any = loaded.exports(store)["run"]
    memory.write(store, b"\xa5" * 65_536, 0)
    x = np.random.default_rng().integers(0, 2, (rows, columns)).astype(kind)
    step, params, source, target = columns * kind.itemsize, 64, 1024 + kind.itemsize, 4096
    memory.write(store, x.tobytes(), source)
    memory.write(store, struct.pack("<6I", columns, rows, step, step, target, source), params)
    run(store, params)
    assert bytes(memory.read(store, target, target + size)) == x.tobytes()
    assert set(memory.read(store, target - 512, target)) == {0xA5}
    assert set(memory.read(store, target + size, 65_536)) == {0xA5}
