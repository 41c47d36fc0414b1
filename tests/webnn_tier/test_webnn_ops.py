"""Every op that an MLGraph takes against float64, at odd sizes inside larger buckets."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webnn.backend import WebNnBackend
from bascule.backend.webnn.ops import TRANSLATIONS
from bascule.backend.webnn.recipe import Array
from bascule.errors import InputError, UnsupportedModelError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import ACTIVATIONS, OPS, POOLINGS, uses_state
from bascule.program.program import Dim, Program, Shape, Value

if sys.version_info[:2] != (3, 12):
    pytest.skip("pywebnn has wheels for Python 3.12 alone", allow_module_level=True)

# A run's own rows, and the bucket's.
ROWS = [(1, 1), (1, 4), (3, 3), (5, 8), (67, 131)]


class Recorded:
    """One op under recording: arrays become inputs, or parameters where their name begins with w.

    An array's first axes may be smaller than the bucket: `dims` name them.
    """

    def __init__(self, **dims: tuple[int, int]) -> None:
        self.graph = Graph("one op")
        self.sizes = {name: size for name, (size, _) in dims.items()}
        self._dims = {name: Dim(name, limit) for name, (_, limit) in dims.items()}
        self.inputs: dict[str, Array] = {}
        self.weights: dict[str, Array] = {}

    def value(self, name: str, array: Array | None, dims: str = "") -> Value | None:
        if array is None:
            return None
        narrow = array if array.dtype == np.uint32 else array.astype(np.float32)
        if name.startswith("w"):
            self.weights[name] = narrow
            return self.graph.parameter(name, array.shape)
        self.inputs[name] = narrow
        shape: Shape = (*(self._dims[d] for d in dims), *array.shape[len(dims) :])
        return self.graph.input(name, shape, "u32" if array.dtype == np.uint32 else "f32")

    async def run(self, backend: WebNnBackend, op: str, *values: Any, **attributes: Any) -> Array:
        self.graph.output(self.graph.call(op, *values, **attributes))
        return await run(backend, freeze(self.graph), self.sizes, self.inputs, self.weights)

    def wide(self, *names: str | None) -> list[Array | None]:
        given = {**self.inputs, **self.weights}
        return [
            None if n is None else given[n] if given[n].dtype == np.uint32
            else given[n].astype(np.float64)
            for n in names
        ]  # fmt: skip


async def run(
    backend: WebNnBackend,
    program: Program,
    sizes: dict[str, int],
    inputs: dict[str, Array],
    weights: dict[str, Array],
) -> Array:
    store = backend.store(program.parameters)
    for name, array in weights.items():
        store.write(store.targets[name], 0, np.ascontiguousarray(array))
    executable = await backend.prepare(program, store)
    try:
        return (await executable.run(sizes, inputs))[program.outputs[0].name]
    finally:
        executable.close()
        store.close()


def agree(found: Array, expected: Array, tolerance: float) -> None:
    assert found.dtype == np.float32
    assert found.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize(("size", "limit"), ROWS)
@pytest.mark.parametrize(("columns", "inner"), [(1, 1), (3, 5), (45, 33), (64, 384)])
async def test_webnn_linear(
    backend: WebNnBackend, rng: np.random.Generator, size: int, limit: int, columns: int, inner: int
) -> None:
    one = Recorded(R=(size, limit))
    x = one.value("x", rng.standard_normal((size, inner)), "R")
    w = one.value("w", rng.standard_normal((columns, inner)))
    result = await one.run(backend, "linear", x, w, activation="none")
    agree(result, FUNCTIONS["linear"](*one.wide("x", "w")), 2e-6 + 1.2e-7 * inner**0.5)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("with_residual", [False, True])
async def test_what_follows_a_linear_layer_on_webnn(
    backend: WebNnBackend,
    rng: np.random.Generator,
    activation: str,
    with_bias: bool,
    with_residual: bool,
) -> None:
    one = Recorded(B=(2, 3), T=(5, 7))
    x = one.value("x", rng.standard_normal((2, 5, 37)), "BT")
    w = one.value("w", rng.standard_normal((21, 37)))
    bias = one.value("wb", rng.standard_normal(21) if with_bias else None)
    residual = one.value("r", rng.standard_normal((2, 5, 21)) if with_residual else None, "BT")
    result = await one.run(backend, "linear", x, w, bias, residual, activation=activation)
    names = ("x", "w", "wb" if with_bias else None, "r" if with_residual else None)
    agree(result, FUNCTIONS["linear"](*one.wide(*names), activation=activation), 4e-6)


@pytest.mark.parametrize(("size", "limit"), ROWS[:4])
@pytest.mark.parametrize("columns", [1, 4, 39])
async def test_webnn_gated_linear(
    backend: WebNnBackend, rng: np.random.Generator, size: int, limit: int, columns: int
) -> None:
    one = Recorded(R=(size, limit))
    x = one.value("x", rng.standard_normal((size, 30)), "R")
    w = one.value("w", rng.standard_normal((2 * columns, 30)))
    result = await one.run(backend, "gated_linear", x, w, activation="silu")
    agree(result, FUNCTIONS["gated_linear"](*one.wide("x", "w"), activation="silu"), 6e-6)


@pytest.mark.parametrize("columns", [1, 3, 31, 384])
@pytest.mark.parametrize("eps", [1e-12, 0.7])
@pytest.mark.parametrize("with_residual", [False, True])
async def test_webnn_norms(
    backend: WebNnBackend,
    rng: np.random.Generator,
    columns: int,
    eps: float,
    with_residual: bool,
) -> None:
    # A single column has no variance: its rounding over the root of eps is all that is left.
    eps = max(eps, 1e-5) if columns == 1 else eps
    one = Recorded(B=(2, 2), T=(3, 5))
    x = one.value("x", rng.standard_normal((2, 3, columns)) * 3 + 1, "BT")
    w, bias = (one.value(n, rng.standard_normal(columns)) for n in ("w", "wb"))
    residual = one.value("r", rng.standard_normal((2, 3, columns)), "BT") if with_residual else None
    result = await one.run(backend, "layer_norm", x, w, bias, residual, eps=eps)
    wide = one.wide("x", "w", "wb", "r" if with_residual else None)
    agree(result, FUNCTIONS["layer_norm"](*wide, eps=eps), 4e-6)

    two = Recorded(T=(3, 5))
    x = two.value("x", rng.standard_normal((3, columns)) * 3 + 1, "T")
    result = await two.run(backend, "rms_norm", x, two.value("w", one.weights["w"]), eps=eps)
    agree(result, FUNCTIONS["rms_norm"](*two.wide("x", "w"), eps=eps), 2e-6)

    heads = Recorded(T=(3, 5))  # three runs a row
    x = heads.value("x", rng.standard_normal((3, 3 * columns)), "T")
    result = await heads.run(backend, "rms_norm", x, heads.value("w", one.weights["w"]), eps=eps)
    agree(result, FUNCTIONS["rms_norm"](*heads.wide("x", "w"), eps=eps), 2e-6)

    three = Recorded(T=(3, 5))
    x = three.value("x", two.inputs["x"], "T")
    result = await three.run(backend, "l2_normalise", x, eps=eps)
    agree(result, FUNCTIONS["l2_normalise"](*three.wide("x"), eps=eps), 2e-6)


@pytest.mark.parametrize(("tokens", "limit"), [(1, 1), (1, 16), (9, 9), (31, 32), (70, 80)])
@pytest.mark.parametrize(("heads", "size"), [(1, 1), (3, 5), (2, 32)])
async def test_webnn_attention(
    backend: WebNnBackend,
    rng: np.random.Generator,
    tokens: int,
    limit: int,
    heads: int,
    size: int,
) -> None:
    one = Recorded(B=(4, 5), T=(tokens, limit))
    qkv = one.value("qkv", rng.standard_normal((4, tokens, 3 * heads * size)) * 2, "BT")
    # None counts as one; more than there are, as all: never the bucket's padding.
    lengths = np.array([tokens, 0, (tokens + 1) // 2, tokens + 9], np.uint32)
    result = await one.run(backend, "attention", qkv, one.value("n", lengths, "B"), heads=heads)
    agree(result, FUNCTIONS["attention"](*one.wide("qkv", "n"), heads=heads), 3e-6)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize(("tokens", "limit"), [(1, 1), (1, 16), (9, 9), (31, 32)])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("with_skipped", [False, True])
async def test_webnn_pool(
    backend: WebNnBackend,
    rng: np.random.Generator,
    kind: str,
    tokens: int,
    limit: int,
    fixed: bool,
    with_skipped: bool,
) -> None:
    one = Recorded(B=(4, 7), T=(tokens, limit))
    x = one.value("x", rng.standard_normal((4, tokens, 13)), "B" if fixed else "BT")
    lengths = np.array([tokens, 0, (tokens + 1) // 2, 4_000_000_000], np.uint32)
    n = one.value("n", lengths, "B")
    maximum = np.array([1, 0, tokens, 2], np.uint32)  # all: the last one counts
    skipped = one.value("s", maximum if with_skipped else None, "B")
    result = await one.run(backend, "pool", x, n, skipped, kind=kind)
    wide = one.wide("x", "n", "s" if with_skipped else None)
    agree(result, FUNCTIONS["pool"](*wide, kind=kind), 2e-6)


@pytest.mark.parametrize("with_position", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("positions", [9, 16, 40])
async def test_webnn_embedding(
    backend: WebNnBackend,
    rng: np.random.Generator,
    with_position: bool,
    with_bias: bool,
    positions: int,
) -> None:
    """Ids past the table take its last row; a position table may end before the bucket does."""
    one = Recorded(B=(3, 4), T=(9, 16))
    ids = rng.integers(0, 35, (3, 9), dtype=np.uint32)
    ids[0, :3] = (0, 34, 2**32 - 1)
    table = one.value("w", rng.standard_normal((31, 6)))
    where = one.value("wp", rng.standard_normal((positions, 6))) if with_position else None
    bias = one.value("wb", rng.standard_normal(6)) if with_bias else None
    result = await one.run(backend, "embedding", one.value("ids", ids, "BT"), table, where, bias)
    names = ("ids", "w", "wp" if with_position else None, "wb" if with_bias else None)
    agree(result, FUNCTIONS["embedding"](*one.wide(*names)), 1e-6)


@pytest.mark.parametrize("kind", ACTIVATIONS)
async def test_webnn_activations(
    backend: WebNnBackend, rng: np.random.Generator, kind: str
) -> None:
    far = np.array([-1e30, -3e4, -100, -88, -5.6, -0.0, 0, 5.6, 88, 100, 3e4, 1e30])
    x = np.concatenate((np.linspace(-12, 12, 4001), rng.standard_normal(101) * 1e-3, far))
    one = Recorded(N=(x.size, x.size + 3))
    result = await one.run(backend, "activate", one.value("x", x, "N"), kind=kind)
    expected = FUNCTIONS["activate"](*one.wide("x"), kind=kind)
    assert (np.abs(result - expected) / np.maximum(1, np.abs(x))).max() < 1e-6


@pytest.mark.parametrize("kind", ACTIVATIONS)
async def test_nan_is_never_lost_on_webnn(backend: WebNnBackend, kind: str) -> None:
    x = np.zeros((5, 9), np.float32)
    x[2, 3] = x[4, 8] = np.nan
    for op, attributes in (("activate", {"kind": kind}), ("l2_normalise", {"eps": 1e-12})):
        one = Recorded(N=(5, 6))
        result = await one.run(backend, op, one.value("x", x, "N"), **attributes)
        rows = np.isnan(result).any(axis=1)
        assert rows.tolist() == [False, False, True, False, True]
    one = Recorded(N=(5, 6))
    w = one.value("w", np.eye(9))
    result = await one.run(backend, "linear", one.value("x", x, "N"), w, activation=kind)
    assert np.isnan(result[[2, 4]]).any(axis=1).all()
    assert np.isfinite(result[[0, 1, 3]]).all()


@pytest.mark.parametrize("n", [1, 3, 1023])
async def test_webnn_add_multiply_and_concat(
    backend: WebNnBackend, rng: np.random.Generator, n: int
) -> None:
    a, b, c = rng.standard_normal((3, 3, n))
    for op, operands in (("add", (a, b)), ("multiply", (a, b)), ("concat", (a, b, c))):
        one = Recorded(R=(3, 4))
        values = [one.value(f"x{i}", array, "R") for i, array in enumerate(operands)]
        result = await one.run(backend, op, *values)
        agree(result, FUNCTIONS[op](*one.wide(*one.inputs)), 1e-6)
    for op in ("add", "multiply"):
        one = Recorded(R=(3, 4))
        x, y = one.value("x", a, "R"), one.value("y", b[0])
        agree(await one.run(backend, op, x, y), FUNCTIONS[op](*one.wide("x", "y")), 1e-6)


async def test_one_context_runs_one_executable_after_the_other(
    backend: WebNnBackend, rng: np.random.Generator
) -> None:
    """Each has its graph built again when its turn comes, with its own weights."""
    x = rng.standard_normal((2, 3)).astype(np.float32)
    made = []
    for factor in (1, 2):
        graph = Graph("scaled")
        w = graph.parameter("w", (3, 3))
        graph.output(graph.call("linear", graph.input("x", (2, 3)), w, activation="none"))
        program = freeze(graph)
        store = backend.store(program.parameters)
        store.write(store.targets["w"], 0, np.eye(3, dtype=np.float32) * factor)
        made.append((factor, await backend.prepare(program, store)))
    for factor, executable in (*made, *made):
        [result] = (await executable.run({}, {"x": x})).values()
        np.testing.assert_allclose(result, factor * x, rtol=1e-6)


async def test_inputs_are_checked_before_a_graph_sees_them(backend: WebNnBackend) -> None:
    graph = Graph("sum")
    graph.output(graph.call("add", graph.input("x", (2,)), graph.input("y", (2,))))
    executable = await backend.prepare(freeze(graph), backend.store(()))
    with pytest.raises(InputError, match="input 'y'"):
        await executable.run({}, {"x": np.zeros(2, np.float32), "y": np.zeros(3, np.float32)})


def test_what_works_on_a_state_is_not_translated() -> None:
    for name in TRANSLATIONS:
        assert name in OPS
        assert not uses_state(name)


async def test_ops_without_a_translation_are_refused_by_name(backend: WebNnBackend) -> None:
    graph = Graph("image")
    window = {"k_height": 1, "k_width": 1, "stride_y": 1, "stride_x": 1, "pad_y": 0, "pad_x": 0}
    x = graph.input("x", (1, 2, 3, 1))
    graph.output(graph.call("patches", x, **window, first=0, lines=0))
    with pytest.raises(UnsupportedModelError, match="this tier has no patches"):
        await backend.prepare(freeze(graph), backend.store(()))


async def test_what_an_mlgraph_cannot_hold_is_refused_with_its_reason(
    backend: WebNnBackend,
) -> None:
    graph = Graph("step")
    logits = graph.input("logits", (1, 5))
    tokens, position = graph.state("tokens", (8,), "u32"), graph.state("position", (1,), "u32")
    graph.output(graph.call("argmax_token", logits, tokens, position))
    with pytest.raises(UnsupportedModelError, match=r"'step' on WebNN .* \(ops argmax_token\)"):
        await backend.prepare(freeze(graph), backend.store(()))

    graph = Graph("blocks")
    w = graph.parameter("w", (4, 32), dtype="q8_0")
    graph.output(graph.call("linear", graph.input("x", (1, 32)), w, activation="none"))
    program = freeze(graph)
    with pytest.raises(UnsupportedModelError, match="'w' is stored as q8_0"):
        await backend.prepare(program, backend.store(program.parameters))

    graph = Graph("state")
    graph.output(graph.call("add", graph.input("x", (4,)), graph.state("s", (4,))))
    with pytest.raises(UnsupportedModelError, match="'s' outlives a run"):
        await backend.prepare(freeze(graph), backend.store(()))


async def test_parts_of_an_op_are_refused(backend: WebNnBackend) -> None:
    graph = Graph("part")
    qkv, lengths = graph.input("qkv", (2, 5, 48)), graph.input("lengths", (2,), "u32")
    graph.output(graph.call("attention", qkv, lengths, heads=4, first_head=2, n_heads=2))
    with pytest.raises(UnsupportedModelError, match="this tier does no parts of attention"):
        await backend.prepare(freeze(graph), backend.store(()))


async def test_views_are_seen_in_their_shapes(backend: WebNnBackend, rng) -> None:
    one, x = Recorded(T=(9, 16)), rng.standard_normal((9, 24))
    value = one.value("x", x, "T")
    assert value is not None
    t = value.shape[0]
    summed = one.graph.call("add", value, value)
    scaled = one.value("w", rng.standard_normal(4))
    result = await one.run(backend, "add", one.graph.reshape(summed, (t, 6, 4)), scaled)
    (wide, row) = one.wide("x", "w")
    assert wide is not None
    agree(result, 2 * wide.reshape(9, 6, 4) + row, 1e-6)
