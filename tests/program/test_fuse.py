"""Fusion keeps the numbers, and fuses only where nobody else reads the middle value."""

from __future__ import annotations

import numpy as np

from bascule.backend.cpu import ReferenceBackend
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.memory import plan
from bascule.program.program import Program, Value


def _block(*, keep_sum: bool = False, keep_linear: bool = False) -> Graph:
    graph = Graph("block")
    x = graph.input("x", (3, 8))
    weight, bias = graph.input("w", (8, 8)), graph.input("b", (8,))
    y = graph.call("linear", x, weight, bias, activation="none")
    z = graph.call("activate", y, kind="gelu")
    s = graph.call("add", z, x)
    graph.output(graph.call("layer_norm", s, bias, bias, eps=1e-5))
    if keep_sum:
        graph.output(s)
    if keep_linear:
        graph.output(y)
    return graph


async def _run(program: Program) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    inputs = {v.name: rng.standard_normal(v.limits).astype(np.float32) for v in program.inputs}
    backend = ReferenceBackend()
    executable = await backend.prepare(program, backend.store(()))
    return list((await executable.run({}, inputs)).values())


def _unfused(graph: Graph) -> Program:
    memory = plan(graph.calls, graph.outputs)
    return Program(
        "unfused",
        tuple(graph.inputs),
        tuple(graph.outputs),
        (),
        tuple(graph.calls),
        (),
        memory.slots,
        memory.slot_nbytes,
    )


async def test_both_rules_fuse_and_keep_the_numbers() -> None:
    graph = _block()
    program = freeze(graph)
    assert [c.op for c in program.calls] == ["linear", "layer_norm"]
    assert program.calls[0].attribute("activation") == "gelu"
    for fused, plain in zip(await _run(program), await _run(_unfused(graph)), strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-6, atol=1e-6)


async def test_a_value_with_another_reader_is_not_fused_away() -> None:
    graph = _block(keep_sum=True, keep_linear=True)
    program = freeze(graph)
    assert [c.op for c in program.calls] == ["linear", "activate", "add", "layer_norm"]
    for fused, plain in zip(await _run(program), await _run(_unfused(graph)), strict=True):
        np.testing.assert_array_equal(fused, plain)


def test_a_broadcast_sum_is_no_residual() -> None:
    graph = Graph("g")
    x, y = graph.input("x", (3, 8)), graph.input("y", (8,))
    s = graph.call("add", x, y)
    graph.output(graph.call("layer_norm", s, y, y, eps=1e-5))
    assert [c.op for c in freeze(graph).calls] == ["add", "layer_norm"]


def test_calls_stay_in_an_order_where_operands_come_first() -> None:
    graph = Graph("g")
    x = graph.input("x", (3, 8))
    w = graph.input("w", (8, 8))
    y = graph.call("linear", x, w, activation="none")
    other = graph.call("activate", x, kind="relu")
    z = graph.call("activate", y, kind="tanh")
    graph.output(graph.call("add", z, other))
    program = freeze(graph)
    known: set[str] = {v.name for v in program.inputs}
    for call in program.calls:
        operands: list[Value] = [o for o in call.operands if o is not None]
        assert {o.name for o in operands} <= known
        known.add(call.result.name)
    assert len(program.calls) == 3
