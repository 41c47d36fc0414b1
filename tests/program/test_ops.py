"""The op table: what its rows say of operands, parts and cost."""

from __future__ import annotations

import inspect

import pytest

from bascule.errors import InputError
from bascule.program.graph import Graph
from bascule.program.ops import (
    OPS,
    cost_of,
    extends_result,
    is_part,
    matrix_of,
    operand,
    uses_state,
    with_operands,
)

HEADS = {"heads": 4, "kv_heads": 2, "size": 8}


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_a_row_s_numpy_function_takes_its_operands_and_attributes(op) -> None:
    parameters = inspect.signature(op.numpy).parameters.values()
    variadic = {p.kind for p in parameters}
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    if inspect.Parameter.VAR_POSITIONAL not in variadic:
        assert positional == [each.name for each in op.operands]
    named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY} - {"out"}
    assert named <= op.attributes.keys()
    assert named == op.attributes.keys() or inspect.Parameter.VAR_KEYWORD in variadic


@pytest.mark.parametrize("op", OPS.values(), ids=list(OPS))
def test_a_row_is_consistent(op) -> None:
    roles = [each.role for each in op.operands]
    assert "onto" not in roles[:-1]
    assert sum(role in ("weight", "table") for role in roles) <= 1
    assert all(each.role == "state" for each in op.operands if each.updated)
    assert op.parts | op.defaults.keys() <= op.attributes.keys()
    assert (roles[-1] == "onto" or "table" in roles) == bool(op.parts)
    assert not any(each.by_row for each in op.operands) or "weight" in roles


def test_states_are_what_a_call_updates() -> None:
    graph = Graph("states")
    logits, tokens = graph.input("logits", (1, 9)), graph.state("tokens", (4,), "u32")
    loose = graph.input("position", (1,), "u32")
    with pytest.raises(InputError, match="a state as 'position'"):
        graph.call("argmax_token", logits, tokens, loose)
    with pytest.raises(InputError, match="operand 'position'"):
        graph.call("argmax_token", logits, tokens)
    graph.call("argmax_token", logits, tokens, graph.state("at", (1,), "u32"))
    assert uses_state("argmax_token")
    assert not uses_state("attention")


def test_operands_by_their_names() -> None:
    graph = Graph("names")
    x, weight, bias = graph.input("x", (3, 8)), graph.input("w", (6, 8)), graph.input("b", (6,))
    graph.call("linear", x, weight, bias, activation="none")
    (call,) = graph.calls
    assert (operand(call, "bias"), operand(call, "residual")) == (bias, None)
    assert operand(call, "cache") is None
    assert matrix_of(call) == weight
    assert with_operands(call, bias=None).operands == (x, weight, None, None)


def test_parts_are_told_by_attributes_that_are_not_the_whole_s() -> None:
    graph = Graph("parts")
    qkv, lengths = graph.input("qkv", (2, 5, 96)), graph.input("lengths", (2,), "u32")
    ids, table = graph.input("ids", (2, 3), "u32"), graph.input("table", (7, 4))
    graph.call("attention", qkv, lengths, heads=4)
    graph.call("attention", qkv, lengths, heads=4, first_head=2, n_heads=2)
    graph.call("embedding", ids, table)
    graph.call("embedding", ids, table, first=7, whole=14)
    graph.call("activate", qkv, kind="relu")
    assert [is_part(call) for call in graph.calls] == [False, True, False, True, False]
    assert [extends_result(call) for call in graph.calls] == [True, True, False, False, False]


def test_what_calls_cost() -> None:
    graph = Graph("cost")
    x, weight = graph.input("x", (3, 8)), graph.input("w", (6, 8))
    graph.call("linear", x, weight, activation="none")
    ids, table = graph.input("ids", (2, 3), "u32"), graph.input("table", (700, 4))
    graph.call("embedding", ids, table)
    cache, position = graph.state("cache", (16, 32), "f16"), graph.state("p", (1,), "u32")
    q = graph.input("q", (3, 32))
    graph.call("cached_attention", q, cache, position, window=5, **HEADS)
    product, lookup, attention = map(cost_of, graph.calls)
    assert (product.multiply_adds, product.nbytes) == (3 * 8 * 6, 4 * (24 + 48 + 18))
    assert (lookup.multiply_adds, lookup.nbytes) == (0, 4 * (6 + 24))
    assert attention.multiply_adds == 2 * 4 * 3 * 5 * 8
    assert attention.nbytes == 4 * (96 + 1 + 96) + 2 * 16 * 32


def test_positions_have_a_row_a_token() -> None:
    graph = Graph("short")
    ids, table = graph.input("ids", (1, 3), "u32"), graph.input("table", (2, 5))
    with pytest.raises(InputError, match="at least T rows"):
        graph.call("embedding", ids, table, graph.input("position", (2, 5)))
    graph.call("embedding", ids, table, graph.input("rows", (3, 5)))
