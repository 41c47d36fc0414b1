"""Instructions in words become another assembler's bytes; loops write their result alone."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
import wasmtime

from bascule.array.dtypes import named
from bascule.array.loops import LoopText, Operand, Operation
from bascule.backend.wasm.assembler import CODES, Function

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


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint8", "bool"])
@pytest.mark.parametrize("columns", [4, 5, 6, 7, 8, 41])
def test_a_loop_writes_its_result_and_nothing_beside_it(dtype: str, columns: int) -> None:
    rows, kind = 3, named(dtype)
    size = rows * columns * kind.itemsize
    module = LoopText([Operand(kind, True)], [Operation("copy", (0,), kind)]).module()
    store = wasmtime.Store()
    memory = wasmtime.Memory(store, wasmtime.MemoryType(wasmtime.Limits(1, None)))
    loaded = wasmtime.Instance(store, wasmtime.Module(store.engine, module), [memory])
    run: Any = loaded.exports(store)["run"]
    memory.write(store, b"\xa5" * 65_536, 0)
    x = np.random.default_rng().integers(0, 2, (rows, columns)).astype(kind)
    step, params, source, target = columns * kind.itemsize, 64, 1024 + kind.itemsize, 4096
    memory.write(store, x.tobytes(), source)
    memory.write(store, struct.pack("<6I", rows, columns, step, step, target, source), params)
    run(store, params)
    assert bytes(memory.read(store, target, target + size)) == x.tobytes()
    assert set(memory.read(store, target - 512, target)) == {0xA5}
    assert set(memory.read(store, target + size, 65_536)) == {0xA5}
