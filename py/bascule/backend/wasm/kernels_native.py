"""The kernels outside a page, run by wasmtime, for tests and scripts; numpy's BLAS is faster."""

from __future__ import annotations

import atexit
import ctypes
import struct
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import finalize

from bascule.backend.wasm.kernels import ALIGNMENT, Argument, module_path
from bascule.backend.wasm.tensor import ITEM_NBYTES, Tensor
from bascule.errors import TierUnavailableError

if TYPE_CHECKING:
    from bascule.backend.deviceless import Loop
    from bascule.base.arrays import Array

_PAGE_NBYTES = 1 << 16
_MAX_PAGES = 1 << 16
# The C stack grows down from here; the module's constants follow, then the memory of `empty`.
_STACK_TOP = 1 << 16
_HEAP = 1 << 17
_UNUSABLE = "wasmtime cannot load its kernels"
_ROOM = (
    "It reserves 4 GiB of address space: raise the limit (ulimit -v), or use tier='cpu', which "
    "is faster outside a page."
)
# Functions that a runtime accepts only with SIMD, and with relaxed SIMD.
_SPLAT = "(i32x4.splat (i32.const 0))"
_PROBES = {
    "wasm_simd": f"(module (func (drop {_SPLAT})))",
    "wasm_relaxed_simd": f"(module (func (drop (i8x16.relaxed_swizzle {_SPLAT} {_SPLAT}))))",
}


def _wasmtime() -> Any:
    try:
        import wasmtime
    except ImportError:
        raise TierUnavailableError(
            "wasm",
            "outside a page it needs the package wasmtime",
            hint="pip install wasmtime, or use tier='cpu', which is faster outside a page.",
        ) from None
    return wasmtime


def simd_facts() -> dict[str, bool]:
    """Whether the runtime has SIMD and relaxed SIMD; TierUnavailableError without a runtime."""
    wasmtime = _wasmtime()
    engine = wasmtime.Engine()

    def validates(text: str) -> bool:
        try:
            wasmtime.Module.validate(engine, wasmtime.wat2wasm(text))
        except wasmtime.WasmtimeError:
            return False
        return True

    return {name: validates(text) for name, text in _PROBES.items()}


@cache
def _compiled(code: bytes) -> tuple[Any, Any]:
    """Return an engine and a compiled module, shared by all stores of the process."""
    wasmtime = _wasmtime()
    engine = wasmtime.Engine()
    return engine, wasmtime.Module(engine, code)


atexit.register(_compiled.cache_clear)  # wasmtime cannot free it once Python takes modules apart


class NativeKernels:
    """`LinkedKernels` in a memory of their own; tensors are views of it and free themselves."""

    loop_elements = 1 << 18  # arrays are copied into the memory: so many stay in the cache

    def __init__(self, path: str) -> None:
        wasmtime = _wasmtime()
        try:
            self._open(wasmtime, path)
        except wasmtime.WasmtimeError as error:
            problem = " ".join(str(error).split())
            raise TierUnavailableError("wasm", f"{_UNUSABLE} ({problem})", hint=_ROOM) from None

    def _open(self, wasmtime: Any, path: str) -> None:
        self.name = f"wasmtime {version('wasmtime')}"
        engine, module = _compiled(Path(path).read_bytes())
        self._store = wasmtime.Store(engine)
        # By default wasmtime reserves all 4 GiB, so that growing never moves the memory.
        limits = wasmtime.Limits(_HEAP // _PAGE_NBYTES, _MAX_PAGES)
        self._memory = wasmtime.Memory(self._store, wasmtime.MemoryType(limits))
        self._start = ctypes.addressof(self._memory.data_ptr(self._store).contents)
        self._used = _HEAP
        self._free: dict[int, list[int]] = {}

        self._wasmtime = wasmtime
        linker = self._linker = wasmtime.Linker(engine)
        linker.define(self._store, "env", "memory", self._memory)
        i32 = wasmtime.ValType.i32()
        bases = {"__memory_base": _STACK_TOP, "__table_base": 0, "__stack_pointer": _STACK_TOP}
        for name, value in bases.items():
            kind = wasmtime.GlobalType(i32, name == "__stack_pointer")
            linker.define(self._store, "env", name, wasmtime.Global(self._store, kind, value))
        self._exports = linker.instantiate(self._store, module).exports(self._store)

    def empty(self, shape: tuple[int, ...], dtype: str = "f32") -> Tensor:
        nbytes = prod(shape) * ITEM_NBYTES[dtype]
        room = max(ALIGNMENT, -(-nbytes // ALIGNMENT) * ALIGNMENT)
        free = self._free.setdefault(room, [])
        offset = free.pop() if free else self._grow(room)
        memory = (ctypes.c_ubyte * room).from_address(self._start + offset)
        finalize(memory, self._release, room, offset)
        return Tensor(memory, offset, shape, dtype)

    def bind(self, kernel: str, *arguments: Argument) -> Callable[[], object]:
        plain = map(_plain, arguments)
        run: Any = self._exports[kernel]
        return partial(run, self._store, *plain)

    def call(self, kernel: str, *arguments: Argument) -> int:
        held = [self._reachable(a) for a in arguments]
        plain = map(_plain, held)
        run: Any = self._exports[kernel]
        return run(self._store, *plain) or 0

    def load(self, module: bytes) -> Loop:
        """See `LinkedKernels.load`. Arrays are outside the memory: they are copied in and out."""
        loaded = self._wasmtime.Module(self._linker.engine, module)
        run: Any = self._linker.instantiate(self._store, loaded).exports(self._store)["run"]

        def loop(out: Array, reads: Sequence[Array], numbers: Sequence[int]) -> None:
            tensors = [self._scratch(each.nbytes) for each in (out, *reads)]
            for tensor, each in zip(tensors[1:], reads, strict=True):
                tensor.write(each)
            words = (*numbers, *(tensor.address for tensor in tensors))
            params = self._scratch(4 * len(words))
            params.write(struct.pack(f"<{len(words)}I", *words))
            run(self._store, params.address)
            memoryview(out).cast("B")[:] = tensors[0].bytes()[: out.nbytes]

        return loop

    @property
    def used_nbytes(self) -> int:
        """How much of its memory arrays have used."""
        return self._used

    def _scratch(self, nbytes: int) -> Tensor:
        """Return scratch memory in powers of two, so that arrays of many sizes share it."""
        return self.empty((1 << (nbytes - 1).bit_length(),), "u8")

    def _reachable(self, argument: Argument) -> Tensor | float | None:
        """Return the argument, an array's address, or that of a copy inside the memory."""
        if argument is None or isinstance(argument, int | float | Tensor):
            return argument
        offset = argument.__array_interface__["data"][0] - self._start
        if argument.flags.c_contiguous and 0 <= offset < self._used:
            return offset
        copy = self.empty((argument.nbytes,), "u8")
        copy.write(argument)
        return copy

    def _grow(self, nbytes: int) -> int:
        offset, end = self._used, self._used + nbytes
        lacking = end - self._memory.data_len(self._store)
        if end > _MAX_PAGES * _PAGE_NBYTES:
            raise MemoryError(f"WebAssembly's 4 GiB cannot hold another {nbytes:,} bytes")
        if lacking > 0:
            try:
                self._memory.grow(self._store, -(-lacking // _PAGE_NBYTES))
            except Exception as error:  # wasmtime's own, which only it can name
                raise MemoryError(f"wasmtime has no {nbytes:,} bytes more ({error})") from None
        self._used = end
        return offset

    def _release(self, room: int, offset: int) -> None:
        self._free[room].append(offset)


def _plain(argument: Argument) -> Any:
    """Return an address (0 for None) or the number: wasmtime takes no integer for a float."""
    if isinstance(argument, Tensor):
        return argument.address
    return 0 if argument is None else argument


def open_native() -> NativeKernels:
    """Load the module; TierUnavailableError without wasmtime."""
    return NativeKernels(module_path())
