"""A kernel's meaning in numpy: it serves tiers without shaders, and proves the others."""

# pyright: reportPrivateUsage=false
# Kernels use the private parts of buffers.

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from bascule.base.arrays import NUMPY, Array, np
from bascule.errors import InputError, WrongResultError
from bascule.kernels.call import Call
from bascule.kernels.numpy_types import dtype_of
from bascule.kernels.operands import Operand, Operands
from bascule.kernels.wgsl_types import ArrayOf, StoredType, Struct, scalar_of

# Of floats, relative to the RMS of the expected numbers: float16 is off by 6e-4.
TOLERANCE = 2e-3


class Reference:
    """A numpy function that computes what a kernel does.

    It is called with the bindings and scalars that its parameters name (all of them if it takes
    `**kwargs`), as arrays and numbers, and returns the outputs in the order of their bindings: an
    array, or a tuple of several.
    """

    def __init__(self, function: Callable[..., Any], label: str) -> None:
        if not callable(function):
            raise InputError(f"{label}, reference", "a function", type(function).__name__)
        self._function = function
        self._label = label
        self._names = _parameters(function)

    async def outputs(self, call: Call, operands: Mapping[str, Operand]) -> dict[str, Array]:
        """Return the arrays that the outputs should hold, of their own dtypes."""
        known: dict[str, Any] = {**call.scalars, "count": call.count, "groups": call.groups}
        for name, operand in operands.items():
            if self._names is None or name in self._names:
                known[name] = await values_of(operand)
        arguments = {n: known[n] for n in known if self._names is None or n in self._names}
        result = self._function(**arguments)
        results = result if isinstance(result, tuple) else (result,)
        if len(results) != len(call.outputs):
            expected = f"{len(call.outputs)} outputs ({', '.join(call.outputs)})"
            raise InputError(f"{self._label}, reference", expected, f"{len(results)}")
        return {
            name: self._shaped(operands[name], value)
            for name, value in zip(call.outputs, results, strict=True)
        }

    async def serve(self, call: Call, operands: Mapping[str, Operand]) -> None:
        """Compute the outputs and write them to their buffers."""
        for name, array in (await self.outputs(call, operands)).items():
            operands[name].buffer._write(array)

    def _shaped(self, operand: Operand, value: Any) -> Array:
        dtype, n = _element(operand)
        result = np.ascontiguousarray(value, dtype)
        if result.nbytes != n * dtype.itemsize:
            expected = f"{n:,} elements for {operand.binding.name}"
            where = f"{self._label}, reference"
            raise InputError(where, expected, f"an array of shape {np.shape(value)}")
        return result


async def values_of(operand: Operand) -> Array:
    """Return what an operand holds, in the caller's shape."""
    dtype, n = _element(operand)
    result = np.empty(-(-n * dtype.itemsize // 4) * 4, np.uint8)
    await operand.buffer._read(result[: n * dtype.itemsize])
    values = result[: n * dtype.itemsize].view(dtype)
    shape = operand.shape
    return values.reshape(shape) if shape is not None else values


async def outputs_of(operands: Operands) -> dict[str, Array]:
    """Return what the outputs of a call hold, by binding."""
    return {operand.binding.name: await values_of(operand) for operand in operands.outputs}


def restore_outputs(operands: Operands, values: Mapping[str, Array]) -> None:
    """Write values back to the outputs of a call."""
    for operand in operands.outputs:
        operand.buffer._write(values[operand.binding.name])


def check_equal(label: str, expected: Mapping[str, Array], results: Mapping[str, Array]) -> None:
    """WrongResultError if integers differ, or floats by more than the tolerance."""
    for name, right in expected.items():
        worst = _deviation(results[name], right)
        if worst > TOLERANCE:
            problem = (
                f"{name} is off by {worst:.2g} from its reference, and {TOLERANCE:.2g} is allowed"
            )
            raise WrongResultError(label, problem)


def _deviation(result: Array, right: Array) -> float:
    flat, wanted = result.reshape(-1), right.reshape(-1)
    if wanted.dtype.names is not None:
        return max(_deviation(flat[n].copy(), wanted[n].copy()) for n in wanted.dtype.names)
    if wanted.dtype.kind != "f":
        return 0.0 if np.array_equal(flat, wanted) else float("inf")
    wide, mine = wanted.astype(np.float64), flat.astype(np.float64)
    finite = np.isfinite(wide)
    if not np.array_equal(wide[~finite], mine[~finite], equal_nan=True):
        return float("inf")
    wide, mine = wide[finite], mine[finite]
    scale = float(np.sqrt(np.mean(np.square(wide)))) if wide.size else 1.0
    worst = float(np.max(np.abs(mine - wide), initial=0.0)) / (scale or 1.0)
    return worst if np.isfinite(worst) else float("inf")


def _element(operand: Operand) -> tuple[np.dtype[Any], int]:
    """Return the dtype of an operand's memory, and the number of elements."""
    if operand.array is not None and operand.array.dtype != np.uint8:
        return operand.array.dtype, operand.array.size
    type: StoredType = operand.binding.type
    inner = type.element if isinstance(type, ArrayOf) else type
    dtype = dtype_of(inner) if isinstance(inner, Struct) else _scalar_dtype(inner)
    return dtype, operand.nbytes // dtype.itemsize


def _scalar_dtype(type: StoredType) -> np.dtype[Any]:
    scalar = scalar_of(type)
    return np.dtype(np.uint8 if scalar is None else NUMPY[scalar.name])


def _parameters(function: Callable[..., Any]) -> frozenset[str] | None:
    """Return the names of its parameters; None if it takes any."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a function without a signature
        return None
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)
