"""Chunked embedding: rows of a table that no binding holds are looked up part by part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bascule.program.program import Call, Parameter, Program
from bascule.program.rewrites.cuts import Cuts, value_of, with_parts
from bascule.program.rewrites.rewrite import Limits, Taken


def chunked_embedding(
    program: Program, limits: Limits, cuts: Cuts | None = None
) -> tuple[Program, tuple[Taken, ...]]:
    """See `Rewrite`: for tables that no binding holds, or that are cut for a layer which reads
    them, too.

    The result is equal bit by bit: each lookup leaves what the ones before it have found. `cuts`
    and errors as in `layer_decomposition`.
    """
    splits = {"embedding": _embedding, "token_embedding": _token_embedding}
    return with_parts(program, limits, cuts, "chunked_embedding", splits)


def _embedding(call: Call, tables: Sequence[Parameter], _: Sequence[Parameter]) -> list[Call]:
    """What is added to the rows is added by the last part."""
    ids, _table, position, bias, before = call.operands
    calls: list[Call] = []
    for last, part in _parts(call, tables):
        added = (position, bias) if last else (None, None)
        calls.append(replace(part, operands=(ids, part.operands[0], *added, before)))
        before = part.result
    return calls


def _token_embedding(call: Call, tables: Sequence[Parameter], _: Sequence[Parameter]) -> list[Call]:
    _table, tokens, position, before = call.operands
    calls: list[Call] = []
    for _last, part in _parts(call, tables):
        calls.append(replace(part, operands=(part.operands[0], tokens, position, before)))
        before = part.result
    return calls


def _parts(call: Call, tables: Sequence[Parameter]) -> list[tuple[bool, Call]]:
    """A lookup a part, with the part alone for an operand, and whether it is the last."""
    first, whole = call.whole("first"), call.whole("whole")
    rows = sum(table.shape[0] for table in tables)
    made: list[tuple[bool, Call]] = []
    at = 0
    for table in tables:
        last = table is tables[-1]
        told = {**dict(call.attributes), "first": first + at, "whole": whole or rows}
        name = f"{call.result.name}[{at}]"
        result = call.result if last else replace(call.result, name=name)
        attributes = tuple(sorted(told.items()))
        made.append((last, Call(call.op, (value_of(table),), result, attributes)))
        at += table.shape[0]
    return made
