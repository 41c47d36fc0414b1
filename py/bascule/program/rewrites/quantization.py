"""Progressive quantization: weights are quantized one by one, until they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bascule.base.dtypes import DType
from bascule.errors import LimitError
from bascule.program.ops import operands_of
from bascule.program.program import Call, Parameter, Program, Value
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits, rebuilt

_RUN = 32


def progressive_quantization(
    program: Program, limits: Limits
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`: the only one that changes numbers, and only if `weights_nbytes` requires it.

    Largest first, to 8 bits and, if that is not enough, to 4; then the most sensitive, embedding
    tables and the output layer, to 8 bits and never below. Each is what quantizing all at once in
    its format would give. LimitError if all of that is not enough.
    """
    total = sum(p.nbytes for p in program.parameters)
    if total <= limits.weights_nbytes:
        return program, ()
    formats: dict[str, DType] = {}
    fits = False
    for parameter, dtype in _steps(program):
        formats[parameter.name] = dtype
        if _nbytes(program, formats) <= limits.weights_nbytes:
            fits = True
            break
    if not fits:
        needed = f"{_nbytes(program, formats):,} bytes in the fewest bits"
        allowed = f"{limits.weights_nbytes:,.0f} are allowed"
        raise LimitError(f"the weights of {program.name}", needed, allowed, hint="Allow more.")
    reason = f"{total:,} bytes of weights, and {limits.weights_nbytes:,.0f} are allowed"
    applied = AppliedRewrite("progressive_quantization", reason, len(formats))
    return _with_formats(program, formats), (applied,)


def _steps(program: Program) -> list[tuple[Parameter, DType]]:
    """Return which weight becomes what, in order."""
    able = {p.name for p in program.parameters if p.dtype == "f32" and _in_runs(p)}
    outputs = {value.name for value in program.outputs}
    sensitive: set[str] = set()
    for call in program.calls:
        for operand, value in operands_of(call):
            if value.name not in able:
                continue
            if operand.role not in ("weight", "table"):  # these alone may be blocks
                able.discard(value.name)
            elif operand.role == "table" or call.result.name in outputs:
                sensitive.add(value.name)
    ordered = sorted(program.parameters, key=lambda p: -p.nbytes)
    plain = [p for p in ordered if p.name in able - sensitive]
    last = [p for p in ordered if p.name in able & sensitive]
    eight, four = "q8_0", "q4_1"
    return [*((p, eight) for p in plain), *((p, four) for p in plain), *((p, eight) for p in last)]


def _in_runs(parameter: Parameter) -> bool:
    return len(parameter.shape) == 2 and parameter.shape[1] % _RUN == 0


def _nbytes(program: Program, formats: dict[str, DType]) -> int:
    return sum(replace(p, dtype=formats.get(p.name, p.dtype)).nbytes for p in program.parameters)


def _with_formats(program: Program, formats: dict[str, DType]) -> Program:
    parameters = [replace(p, dtype=formats.get(p.name, p.dtype)) for p in program.parameters]

    def in_format(value: Value | None) -> Value | None:
        if value is None or value.name not in formats:
            return value
        return replace(value, dtype=formats[value.name])

    calls: Sequence[Call] = [
        replace(call, operands=tuple(in_format(o) for o in call.operands)) for call in program.calls
    ]
    return rebuilt(program, calls, parameters=parameters)
