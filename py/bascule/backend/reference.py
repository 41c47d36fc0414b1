"""Every op in numpy: the living definition of the op set.

The functions compute in the dtype they are given: float64 when a test wants a yardstick, float32
on the CPU tier. They stand in the op table's rows. States are updated in place.
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
    """The result of a call whose operands stand in `values`."""
    operands = [None if o is None else _viewed(values[o.name], o, sizes) for o in call.operands]
    attributes = {
        name: sizes[value.name] if isinstance(value, Dim) else value
        for name, value in call.attributes
    }
    return functions[call.op](*operands, **attributes)


def _viewed(array: Any, value: Value, sizes: Mapping[str, int]) -> Any:
    """What `Graph.reshape` made of a value: the same numbers, in the shape that a call sees."""
    shape = value.sizes(sizes)
    return array if array.shape == shape else array.reshape(shape)
