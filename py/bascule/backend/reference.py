"""Evaluate calls with the numpy functions of the op table, which define the op set.

They compute in the dtype of their operands: float64 as the tests' reference, float32 on the CPU
tier. States are updated in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from bascule.base.arrays import Array
from bascule.program.ops import OPS
from bascule.program.program import Call, Dim, Value

T = TypeVar("T")

FUNCTIONS: Mapping[str, Callable[..., Array]] = {op.name: op.numpy for op in OPS.values()}


def evaluate(
    functions: Mapping[str, Callable[..., T]],
    call: Call,
    values: Mapping[str, object],
    sizes: Mapping[str, int],
) -> T:
    """Return the result of a call whose operands are in `values`."""
    operands = [None if o is None else _viewed(values[o.name], o, sizes) for o in call.operands]
    attributes = {
        name: sizes[value.name] if isinstance(value, Dim) else value
        for name, value in call.attributes
    }
    return functions[call.op](*operands, **attributes)


def _viewed(array: Any, value: Value, sizes: Mapping[str, int]) -> Any:
    """View an operand in the shape that a call sees; see `Graph.reshape`."""
    shape = value.sizes(sizes)
    return array if array.shape == shape else array.reshape(shape)
