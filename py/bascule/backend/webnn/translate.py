"""Translate a program to an MLGraph's recipe; what an MLGraph cannot do is rejected."""

from __future__ import annotations

from bascule.backend.webnn.ops import TRANSLATIONS
from bascule.backend.webnn.recipe import DataType, Recipe
from bascule.base.dtypes import DType
from bascule.errors import UnsupportedModelError
from bascule.program.ops import is_part, uses_state
from bascule.program.program import Program, Value

_TYPES: dict[DType, DataType] = {"f32": "float32", "u32": "uint32"}


def translate(program: Program) -> Recipe:
    """Return the recipe at the program's limits; UnsupportedModelError with the `refusal`."""
    refused = refusal(program)
    if refused:
        hint = 'Use tier="auto" to take the best tier that runs it.'
        raise UnsupportedModelError(f"{program.name!r} on WebNN", refused, hint=hint)
    recipe = Recipe()
    values: dict[str, int] = {}
    for call in program.calls:
        for value in filter(None, call.operands):
            if value.name not in values:
                values[value.name] = _leaf(recipe, program, value)
        operands = tuple(
            None if o is None else _viewed(recipe, values[o.name], o) for o in call.operands
        )
        values[call.result.name] = TRANSLATIONS[call.op](recipe, call, operands)
    for value in program.outputs:
        at = _viewed(recipe, values[value.name], value)
        if recipe.steps[at].method == "input":  # which WebNN takes for no output
            at = recipe.step("identity", [at], recipe.shapes[at])
        recipe.outputs[value.name] = at
    return recipe


def refusal(program: Program) -> str:
    """Return why an MLGraph cannot run that program; empty if it can."""
    unable = dict.fromkeys(c.op for c in program.calls if c.op not in TRANSLATIONS)
    ops = ", ".join(unable)
    if unable and not any(uses_state(op) for op in unable):
        return f"this tier has no {ops}"
    if unable:
        return f"its states outlive a run (ops {ops}), and an MLGraph keeps nothing between runs"
    parts = dict.fromkeys(c.op for c in program.calls if is_part(c))
    if parts:
        return f"this tier does no parts of {', '.join(parts)}"
    results = {c.result.name for c in program.calls}
    for value in (o for c in program.calls for o in c.operands if o and o.name not in results):
        if value in program.states:
            return f"its {value.name!r} outlives a run, and an MLGraph keeps nothing between runs"
        if value.dtype not in _TYPES:
            return f"its {value.name!r} is stored as {value.dtype}, and this tier takes float32"
    return ""


def _viewed(recipe: Recipe, at: int, value: Value) -> int:
    """Return the operand in the shape of its view; see `Graph.reshape`."""
    if recipe.shapes[at] == value.limits:
        return at
    return recipe.step("reshape", [at], value.limits, value.limits)


def _leaf(recipe: Recipe, program: Program, value: Value) -> int:
    """Return an operand that no call computes; an input that no call reads is left out."""
    if value in program.inputs:
        return recipe.input(value.name, value.limits, _TYPES[value.dtype])
    return recipe.parameter(value.name, value.limits)
