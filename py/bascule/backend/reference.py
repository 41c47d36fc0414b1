"""Every op in numpy: the living definition of the op set.

The functions compute in the dtype they are given: float64 when a test wants a yardstick, float32
on the CPU tier. They stand in the op table's rows. States are updated in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bascule.base.arrays import Array
from bascule.program.ops import OPS

FUNCTIONS: Mapping[str, Callable[..., Array]] = {op.name: op.numpy for op in OPS.values()}
