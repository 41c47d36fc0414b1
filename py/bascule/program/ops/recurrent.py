"""Recurrent layers: a state passes from each step to the next."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.base.arrays import Array, np
from bascule.program.ops.samples import Draw
from bascule.program.ops.table import Op, Operand, first_two, inputs, need
from bascule.program.program import Attribute, Call, Shape

# Hidden size of an LSTM; its kernel keeps the state in workgroup memory.
MAX_HIDDEN = 2048
# Past it exp overflows float32, and the sigmoid is 0.
_LOWEST = -80.0


def _lstm(shapes: tuple[Shape | None, ...], _: Mapping[str, Attribute]) -> Shape:
    gates, weight = first_two(shapes, "lstm")
    hidden = weight[0] if weight else 0
    known = isinstance(hidden, int) and 0 < hidden <= MAX_HIDDEN and len(gates) == 2
    need(known, "lstm", f"gates (T, 4H), H from 1 to {MAX_HIDDEN}", shapes)
    assert isinstance(hidden, int)
    need(gates[1] == 4 * hidden, "lstm", "gates (T, 4H)", shapes)
    need(weight == (hidden, 4 * hidden), "lstm", "weight (H, 4H)", weight)
    need(shapes[2] == (2 * hidden,), "lstm", "state (2H)", shapes[2])
    return (gates[0], 2 * hidden)


def lstm(gates: Array, weight: Array, state: Array) -> Array:
    """Steps of a long short-term memory (Hochreiter & Schmidhuber 1997): (T, 2H).

    A row of `gates` (T, 4H) has what a step's input adds to the input gate, the forget gate, the
    candidate and the output gate in turn; the previous hidden state is added through `weight` (H,
    4H). `state` and each row of the result are H hidden numbers and H of the cell.
    """
    size = len(weight)
    result = np.empty((len(gates), 2 * size), gates.dtype)
    hidden, cell = state[:size], state[size:]
    for step, entering in enumerate(gates):
        pre = entering + hidden @ weight
        entered, forget, shown = (_sigmoid(pre[at * size :][:size]) for at in (0, 1, 3))
        cell = forget * cell + entered * np.tanh(pre[2 * size : 3 * size])
        hidden = shown * np.tanh(cell)
        result[step, :size], result[step, size:] = hidden, cell
    return result


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-np.maximum(x, _LOWEST)))


def _contracting(draw: Draw) -> Array:
    """A weight that reduces differences in each step: others can amplify rounding."""
    scale = 0.5 / draw.shape[0] ** 0.5
    return (scale * draw.rng.standard_normal(draw.shape)).astype(np.float32)


def _work(call: Call) -> int:
    gates, weight = call.operands[:2]
    assert gates is not None
    assert weight is not None
    return gates.limits[0] * weight.limits[0] * weight.limits[1]


ROWS = (
    Op(
        "lstm",
        (*inputs("gates"), Operand("weight", "input", sample=_contracting), *inputs("state")),
        {},
        "a long short-term memory: hidden and cell after each step, from gates (T, 4H), weight "
        "(H, 4H) and the state before",
        _lstm,
        numpy=lstm,
        multiply_adds=_work,
    ),
)
