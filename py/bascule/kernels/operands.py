"""The storage arguments of a call as memory on the device, and their results."""

# pyright: reportPrivateUsage=false
# Kernels use the private parts of buffers.

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from bascule.base.arguments import described
from bascule.base.arrays import NUMPY, Array, np
from bascule.errors import InputError
from bascule.kernels.buffer import BufferPool, DeviceBuffer
from bascule.kernels.numpy_types import dtype_of
from bascule.kernels.page_arrays import fill_page_array, page_array
from bascule.kernels.shader import Binding
from bascule.kernels.uniforms import packed
from bascule.kernels.wgsl_types import ArrayOf, Scalar, Struct, scalar_of

_TAKES = "an array, a buffer of this device, or bytes"


@dataclass(frozen=True, slots=True)
class Operand:
    """One storage argument: the first `nbytes` of `buffer` hold it on the device.

    `shape` is the caller's, None for bytes. `array` is the caller's array that an output is copied
    into, `page` the page's typed array.
    """

    binding: Binding
    buffer: DeviceBuffer
    nbytes: int
    shape: tuple[int, ...] | None
    is_temporary: bool = False
    array: Array | None = None
    page: Any = None

    @property
    def result(self) -> Any:
        """Return the caller's result for an output."""
        if self.page is not None:
            return self.page
        return self.buffer if self.array is None else self.array

    async def fetch(self) -> None:
        """Copy an output into the caller's array."""
        if self.array is None:
            return
        dense = np.empty(self.array.shape, self.array.dtype)
        await self.buffer._read(dense)
        self.array[...] = dense
        if self.page is not None:
            fill_page_array(self.page, dense)

    def close(self) -> None:
        """Free what was allocated for the call."""
        if self.is_temporary:
            self.buffer.close()


@dataclass(slots=True)
class Operands:
    """All operands of a call. Close them when its work is queued."""

    found: dict[str, Operand] = field(default_factory=dict[str, Operand])

    @property
    def outputs(self) -> list[Operand]:
        """The operands that the kernel writes."""
        return [operand for operand in self.found.values() if operand.binding.access == "write"]

    def close(self) -> None:
        """Free what was allocated for the call."""
        for operand in self.found.values():
            operand.close()


def operands_of(
    bindings: list[Binding], values: Mapping[str, Any], pool: BufferPool, label: str
) -> Operands:
    """Upload the arguments; InputError for one that its binding cannot hold, and if an output
    shares its memory with another argument. LimitError for one that is too large.
    """
    result = Operands()
    try:
        for binding in bindings:
            where = f"{label}, {binding.name}"
            result.found[binding.name] = _operand(binding, values[binding.name], pool, where)
        _refuse_aliases(result.found, label)
    except BaseException:
        result.close()
        raise
    return result


def _operand(binding: Binding, value: Any, pool: BufferPool, where: str) -> Operand:
    is_output = binding.access == "write"
    if isinstance(value, DeviceBuffer):
        _check_buffer(binding, value, pool, where)
        return Operand(binding, value, _nbytes(value), value.shape)
    if is_output and (shape := _shape_of(value)) is not None:
        fresh = _new(binding, shape, pool, where)
        return Operand(binding, fresh, _nbytes(fresh), shape)
    page = None
    if (read := page_array(value)) is not None:
        page, value = (value if is_output else None), read
    if is_output and not isinstance(value, np.ndarray | memoryview):
        raise InputError(where, "an output: an array, a buffer or a shape", described(value))
    array = _array(binding, value, where)
    if is_output and not array.flags.writeable:
        raise InputError(where, "an array that may be written", "a read-only one")
    _check_nbytes(binding, array.nbytes, where)
    buffer = pool.empty((max(1, -(-array.nbytes // 4)),), "u32", where)
    try:
        buffer._write(np.ascontiguousarray(array))
    except BaseException:
        buffer.close()
        raise
    target = array if is_output else None
    given_shape = None if array.dtype == np.uint8 else array.shape
    return Operand(binding, buffer, array.nbytes, given_shape, True, target, page)


def _check_buffer(binding: Binding, buffer: DeviceBuffer, pool: BufferPool, where: str) -> None:
    buffer._check_on(pool, where)
    scalar = scalar_of(binding.type)
    if scalar is not None and buffer._dtype != scalar.name:
        hint = f'Make it with `await device.buffer(x, dtype="{NUMPY[scalar.name]}")`.'
        raise InputError(where, _wanted(binding), f"a buffer of {buffer.dtype}", hint=hint)
    _check_nbytes(binding, _nbytes(buffer), where)


def _nbytes(buffer: DeviceBuffer) -> int:
    return buffer.size * buffer.dtype.itemsize


def _new(binding: Binding, shape: tuple[int, ...], pool: BufferPool, where: str) -> DeviceBuffer:
    scalar = scalar_of(binding.type)
    if scalar is None or scalar.name == "bool":
        hint = f"Make a numpy array of kernel.dtype({binding.name!r})."
        raise InputError(where, f"memory for {binding.type}", f"the shape {shape}", hint=hint)
    if not shape or min(shape) < 1:
        raise InputError(where, "a non-empty shape", str(shape))
    _check_nbytes(binding, prod(shape) * scalar.nbytes, where)
    return pool.empty(shape, scalar.name, where)


def _shape_of(value: Any) -> tuple[int, ...] | None:
    """A shape, or a number of elements."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | np.integer):
        return (int(value),)
    if isinstance(value, tuple | list) and value:
        items: list[Any] = list(value)
        if all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in items):
            return tuple(int(n) for n in items)
    return None


def _array(binding: Binding, value: Any, where: str) -> Array:
    """Return an array of the binding's type; bytes are passed unchanged."""
    scalar = scalar_of(binding.type)
    if isinstance(value, bytes | bytearray) or _is_bytes(value):
        return np.frombuffer(value, np.uint8)
    if isinstance(value, Mapping) and binding.access == "read":
        return np.frombuffer(packed(binding.type, value, where), np.uint8)
    if scalar is not None and isinstance(value, int | float | list | tuple):
        return _converted(value, scalar, where)
    try:
        result = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(where, _TAKES, str(error)) from None
    if scalar is None:
        _check_fields(binding, result, where)
    elif result.dtype != NUMPY[scalar.name]:
        hint = f"Convert it: x.astype(numpy.{NUMPY[scalar.name]})."
        if result.dtype == object:
            raise InputError(where, _TAKES, described(value))
        raise InputError(where, _wanted(binding), f"an array of {result.dtype}", hint=hint)
    return result


def _is_bytes(value: Any) -> bool:
    return isinstance(value, memoryview) and value.format in ("B", "b", "c")


def _converted(value: Any, scalar: Scalar, where: str) -> Array:
    """Return plain numbers as an array of that type, unless one does not fit it."""
    try:
        wide = np.asarray(value)
        if scalar.name in ("u32", "i32") and wide.dtype.kind not in "iu":
            raise InputError(where, "whole numbers", f"an array of {wide.dtype}")
        return np.array(value, NUMPY[scalar.name])
    except (ValueError, OverflowError, TypeError) as error:
        raise InputError(where, f"numbers of {scalar}", str(error)) from None


def _check_fields(binding: Binding, array: Array, where: str) -> None:
    type = binding.type.element if isinstance(binding.type, ArrayOf) else binding.type
    assert isinstance(type, Struct)  # all others are made of one scalar
    wanted = dtype_of(type)
    if array.dtype != wanted:
        hint = f"Make it as numpy.zeros(n, kernel.dtype({binding.name!r}))."
        raise InputError(where, f"an array of struct {type}", f"{array.dtype}"[:120], hint=hint)


def _check_nbytes(binding: Binding, nbytes: int, where: str) -> None:
    min_nbytes = binding.type.nbytes
    stride = binding.type.stride if isinstance(binding.type, ArrayOf) else 1
    if nbytes < min_nbytes:
        raise InputError(where, f"at least {min_nbytes:,} bytes for {binding.type}", f"{nbytes:,}")
    if nbytes % stride:
        expected = f"elements of {stride} bytes for {binding.type}"
        hint = "A vec3 takes the place of four numbers." if stride % 16 == 0 else ""
        raise InputError(where, expected, f"{nbytes:,} bytes", hint=hint)


def _wanted(binding: Binding) -> str:
    scalar = scalar_of(binding.type)
    return f"{NUMPY[scalar.name]} for {binding.type}" if scalar else str(binding.type)


def _refuse_aliases(operands: Mapping[str, Operand], label: str) -> None:
    """InputError if an output shares memory with another argument: WebGPU forbids it."""
    for name, operand in operands.items():
        for other, another in operands.items():
            if operand.binding.access != "write" or name == other:
                continue
            same = operand.buffer._shares_memory(another.buffer)
            if operand.array is not None and another.array is not None:
                same = same or np.shares_memory(operand.array, another.array)
            if same:
                memory = f"the memory of {other}"
                hint = "Declare one binding of access read_write, or use another buffer."
                raise InputError(f"{label}, {name}", "memory of its own", memory, hint=hint)
