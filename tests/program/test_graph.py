"""Recording, shape rules and their complaints."""

from __future__ import annotations

import pytest

from bascule.errors import InputError
from bascule.program.graph import Graph
from bascule.program.program import Dim

B, T = Dim("B", 4), Dim("T", 16)


def test_shapes_follow_the_op_table() -> None:
    graph = Graph("g")
    ids = graph.input("ids", (B, T), "u32")
    lengths = graph.input("lengths", (B,), "u32")
    table = graph.parameter("table", (99, 12))
    x = graph.call("embedding", ids, table)
    assert x.shape == (B, T, 12)
    qkv = graph.call("linear", x, graph.parameter("w", (36, 12)), activation="none")
    assert qkv.shape == (B, T, 36)
    mixed = graph.call("attention", qkv, lengths, heads=3)
    assert mixed.shape == (B, T, 12)
    pooled = graph.call("pool", mixed, lengths, kind="mean")
    assert pooled.shape == (B, 12)
    assert pooled.limits == (4, 12)
    assert pooled.sizes({"B": 3, "T": 5}) == (3, 12)
    assert graph.dims == (B, T)


@pytest.mark.parametrize(
    ("op", "shapes", "attributes", "told"),
    [
        ("linear", [(5, 4), (3, 7)], {"activation": "none"}, "weight"),
        ("linear", [(5, 4), (3, 4), (4,)], {"activation": "none"}, "bias"),
        ("linear", [(5, 4), (3, 4)], {"activation": "swoosh"}, "swoosh"),
        ("layer_norm", [(5, 4), (3,), (3,)], {"eps": 1e-5}, "weight"),
        ("layer_norm", [(5, 4), (4,), (4,), (5, 3)], {"eps": 1e-5}, "residual"),
        ("attention", [(2, 5, 12), (2,)], {"heads": 5}, "divisible"),
        ("attention", [(2, 5, 12), (3,)], {"heads": 2}, "lengths"),
        ("pool", [(2, 5, 12), (2,)], {"kind": "sum"}, "sum"),
        ("add", [(2, 5), (4,)], {}, "y shaped"),
        ("embedding", [(2, 5), (9, 4), (8, 3)], {}, "position"),
        ("embedding", [(2, 5), (9, 4)], {"first": 3, "whole": 11}, "first 3, rows 9, whole 11"),
        ("embedding", [(2, 5), (9, 4)], {"first": 3}, "first 3, rows 9, whole 0"),
        ("concat", [(2, 5), (3, 5)], {}, "last axis"),
        ("activate", [(2, 5)], {"kind": "swoosh"}, "swoosh"),
    ],
)
def test_wrong_shapes_are_told(
    op: str, shapes: list[tuple[int, ...]], attributes: dict[str, str | int], told: str
) -> None:
    graph = Graph("g")
    operands = [graph.input(f"x{i}", shape) for i, shape in enumerate(shapes)]
    with pytest.raises(InputError, match=told) as caught:
        graph.call(op, *operands, **attributes)
    assert caught.value.category == "input"
    assert not graph.calls


def test_unknown_ops_attributes_and_missing_operands_are_told() -> None:
    graph = Graph("g")
    x = graph.input("x", (2, 3))
    with pytest.raises(InputError, match="convolve"):
        graph.call("convolve", x)
    with pytest.raises(InputError, match="attributes"):
        graph.call("activate", x)
    with pytest.raises(InputError, match="weight"):
        graph.call("linear", x, activation="none")
    graph.parameter("w", (3, 3))
    with pytest.raises(InputError, match="once"):
        graph.parameter("w", (3, 3))
