"""Chunked embedding: rows of a table too large to bind are looked up part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bascule.program.ops import OPS, operand, operands_of, with_operands
from bascule.program.program import Call, Parameter, Program
from bascule.program.rewrites.cuts import Cuts, value_of, with_parts
from bascule.program.rewrites.rewrite import AppliedRewrite, Limits


def chunked_embedding(
    program: Program, limits: Limits, cuts: Cuts | None = None
) -> tuple[Program, tuple[AppliedRewrite, ...]]:
    """See `Rewrite`: for tables too large to bind, or that are cut for a layer which reads them,
    too.

    The result is equal bit by bit: each lookup keeps what the previous ones have found. `cuts` and
    errors as in `layer_decomposition`.
    """
    splits = {op.name: _lookups for op in OPS.values() if op.index("table") is not None}
    return with_parts(program, limits, cuts, "chunked_embedding", splits)


def _lookups(call: Call, tables: Sequence[Parameter], _: Sequence[Parameter]) -> list[Call]:
    """Return a lookup per part, each based on the previous result; an op that adds something to the
    rows does so in the last.
    """
    first, total = call.integer("first"), call.integer("whole")
    rows = sum(table.shape[0] for table in tables)
    names = {each.name for each, _ in operands_of(call) if each.role == "parameter"}
    calls: list[Call] = []
    before, at = operand(call, "before"), 0
    for table in tables:
        last = table is tables[-1]
        attributes = {**dict(call.attributes), "first": first + at, "whole": total or rows}
        result = call.result if last else replace(call.result, name=f"{call.result.name}[{at}]")
        part = with_operands(call, table=value_of(table), before=before)
        part = part if last else with_operands(part, **dict.fromkeys(names))
        calls.append(replace(part, result=result, attributes=tuple(sorted(attributes.items()))))
        before, at = result, at + table.shape[0]
    return calls
