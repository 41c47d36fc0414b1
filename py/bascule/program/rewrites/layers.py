"""Layer decomposition: a linear layer too large for the device is divided by its columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bascule.program.ops import MAX_JOINED, operand, with_operands
from bascule.program.program import Call, Parameter, Program, Value
from bascule.program.rewrites.cuts import Cuts, value_of, with_parts
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


def layer_decomposition(
    program: Program, limits: Limits, cuts: Cuts | None = None
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`: for weights too large to bind, and layers with too much work.

    Every number of the result is a sum of the same products as before. `cuts` has the parts if
    other programs read the same weights. LimitError if four rows of a weight, or the result of a
    layer, are already too large.
    """
    splits = {"linear": _linear, "gated_linear": _gated_linear}
    return with_parts(program, limits, cuts, "layer_decomposition", splits)


def _linear(call: Call, weights: Sequence[Parameter], biases: Sequence[Parameter]) -> list[Call]:
    """Columns part by part, joined; a residual, which is whole, is added at the end."""
    residual = operand(call, "residual")
    joined = replace(call.result, name=f"{call.result.name}.all") if residual else call.result
    columns = [_columns(call, weight) for weight in weights]
    for index, bias in enumerate(biases):
        columns[index] = with_operands(columns[index], bias=value_of(bias))
    calls = [*columns, *_joined([part.result for part in columns], joined)]
    return [*calls, Call("add", (joined, residual), call.result)] if residual else calls


def _gated_linear(call: Call, weights: Sequence[Parameter], _: Sequence[Parameter]) -> list[Call]:
    """Columns part by part: those of the gate, and the same ones of what it gates."""
    calls: list[Call] = []
    products: list[Value] = []
    count = len(weights) // 2
    for gate, up in zip(weights[:count], weights[count:], strict=True):
        opened, raised = _columns(call, gate), _columns(call, up, activation="none")
        name = f"{opened.result.name}.gated"
        products.append(replace(opened.result, name=name) if count > 1 else call.result)
        calls += [opened, raised, Call("multiply", (opened.result, raised.result), products[-1])]
    return [*calls, *_joined(products, call.result)] if count > 1 else calls


def _columns(call: Call, weight: Parameter, activation: str | None = None) -> Call:
    """A part of a layer's columns, without a bias."""
    x, y = call.operands[0], call.result
    name = f"{y.name}{weight.name[weight.name.rindex('[') :]}"
    result = Value(name, (*y.shape[:-1], weight.shape[0]))
    kind = activation or call.attribute("activation")
    return Call("linear", (x, value_of(weight), None, None), result, (("activation", kind),))


def _joined(parts: Sequence[Value], result: Value) -> list[Call]:
    """Concatenate as many at once as a kernel can bind, until one is left."""
    calls: list[Call] = []
    while len(parts) > 1:
        groups = [parts[at : at + MAX_JOINED] for at in range(0, len(parts), MAX_JOINED)]
        wider: list[Value] = []
        for index, group in enumerate(groups):
            width = sum(part.limits[-1] for part in group)
            name = f"{result.name}.{len(parts)}.{index}"
            y = result if len(groups) == 1 else Value(name, (*result.shape[:-1], width))
            if len(group) > 1:
                operands = (*group, *(None,) * (MAX_JOINED - len(group)))
                calls.append(Call("concat", operands, y))
            wider.append(y if len(group) > 1 else group[0])
        parts = wider
    return calls
