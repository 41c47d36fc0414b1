"""Layers and tables cut into parts: the same numbers on every tier, under a limit that is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from math import ceil, inf, nan
from typing import Any

import numpy as np
import pytest

from bascule.backend.base import Backend
from bascule.backend.cpu import ReferenceBackend
from bascule.backend.reference import FUNCTIONS
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import open_native as open_kernels
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.base.dtypes import BlockType
from bascule.errors import GpuError, InputError, LimitError
from bascule.program.blocks import BlockMatrix
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Parameter, Program
from bascule.program.rewrites.embeddings import chunked_embedding
from bascule.program.rewrites.layers import layer_decomposition
from bascule.program.rewrites.registry import fit_all, model_rewrites
from bascule.program.rewrites.rewrite import Limits, fit
from tests.limited import LimitedGpu
from tests.shaders.harness import normal, padded, sum_tolerance
from tests.shaders.test_blocks import random_blocks

Array = np.ndarray[Any, np.dtype[Any]]
Weight = Array | BlockMatrix
DTYPES = [BlockType.F32, BlockType.F16, BlockType.Q4_0, BlockType.Q6_K]
named = pytest.mark.parametrize("type", DTYPES, ids=lambda type: type.name)


@pytest.fixture(params=["webgpu", "wasm", "cpu"])
async def backend(request: pytest.FixtureRequest, gpu: NativeGpu) -> AsyncIterator[Backend]:
    if request.param == "webgpu":
        yield WebGpuBackend(gpu)
    else:
        yield WasmBackend(open_kernels()) if request.param == "wasm" else ReferenceBackend()


def weight_of(rng: np.random.Generator, type: BlockType, rows: int, inner: int) -> Weight:
    if type is BlockType.F32:
        return normal(rng, rows, inner)
    return random_blocks(rng, type, rows, inner)


def declared(graph: Graph, name: str, weight: Weight) -> Any:
    dtype = weight.dtype if isinstance(weight, BlockMatrix) else "f32"
    return graph.parameter(name, weight.shape, dtype=dtype)


def rows_of(weight: Weight, parameter: Parameter) -> Array:
    """The bytes of the rows that a parameter keeps, filled up to whole words."""
    first, count = parameter.first, parameter.rows or weight.shape[0]
    if isinstance(weight, BlockMatrix):
        return padded(weight.data.reshape(weight.shape[0], -1)[first : first + count])
    return padded(weight[first : first + count])


async def run(
    backend: Backend,
    program: Program,
    given: Mapping[str, Weight],
    sizes: Mapping[str, int] | None = None,
) -> list[Array]:
    store = backend.store(program.parameters)
    for parameter in program.parameters:
        data = rows_of(given[parameter.tensors[0]], parameter)
        store.write(store.targets[parameter.name], 0, data)
    states = backend.states(program.states, sizes or {})
    for state in program.states:
        states.write(state.name, 0, np.ascontiguousarray(given[state.name]))
    executable = await backend.prepare(program, store, states)
    inputs = {v.name: np.asarray(given[v.name]) for v in program.inputs}
    result = await executable.run(sizes or {}, inputs)
    executable.close()
    states.close()
    store.close()
    return [result[v.name] for v in program.outputs]


def wide(*given: Weight | None) -> list[Any]:
    """For the yardstick in float64."""
    return [
        x.astype(np.float64) if isinstance(x, np.ndarray) and x.dtype == np.float32 else x
        for x in given
    ]


def largest(program: Program) -> int:
    return max(p.nbytes for p in program.parameters)


async def check(
    backend: Backend,
    program: Program,
    limits: Limits,
    given: Mapping[str, Weight],
    expected: Sequence[Array],
    tolerance: float,
    sizes: Mapping[str, int] | None = None,
) -> Program:
    """The rewritten program keeps the limits, and gives what the plain one and numpy give."""
    rewritten, applied = fit(program, limits, model_rewrites())
    assert applied
    assert largest(program) > largest(rewritten)
    assert largest(rewritten) <= limits.binding_nbytes
    assert sum(p.nbytes for p in rewritten.parameters) - sum(
        p.nbytes for p in program.parameters
    ) <= 4 * len(rewritten.parameters)
    plain = await run(backend, program, given, sizes)
    result = await run(backend, rewritten, given, sizes)
    for a, b, c in zip(result, plain, expected, strict=True):
        assert a.shape == b.shape == c.shape
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, c, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    return rewritten


@named
@pytest.mark.parametrize(("rows", "columns"), [(1, 37), (9, 130)])
async def test_a_linear_layer_in_parts(
    backend: Backend, rng: np.random.Generator, type: BlockType, rows: int, columns: int
) -> None:
    x, weight = normal(rng, rows, 256), weight_of(rng, type, columns, 256)
    bias, residual = normal(rng, columns), normal(rng, rows, columns)
    graph = Graph("linear")
    operands = (declared(graph, "w", weight), graph.parameter("b", (columns,)))
    values = graph.input("x", x.shape), *operands, graph.input("r", residual.shape)
    graph.output(graph.call("linear", *values, activation="gelu"))
    program = freeze(graph)
    minimum = max(rows * columns * 4, 4 * 1024)
    limits = Limits(binding_nbytes=max(minimum, largest(program) // 3))
    given = {"x": x, "w": weight, "b": bias, "r": residual}
    expected = FUNCTIONS["linear"](*wide(x, weight, bias, residual), activation="gelu")
    tolerance = 4 * sum_tolerance(256)
    rewritten = await check(backend, program, limits, given, [expected], tolerance)
    assert {c.op for c in rewritten.calls} == {"linear", "concat", "add"}


@named
@pytest.mark.parametrize(("rows", "columns", "parts"), [(1, 5, 1), (9, 67, 3)])
async def test_a_gated_layer_in_parts(
    backend: Backend,
    rng: np.random.Generator,
    type: BlockType,
    rows: int,
    columns: int,
    parts: int,
) -> None:
    """Cut in the middle (where nothing has to be joined), and each half into parts."""
    x, weight = normal(rng, rows, 256), weight_of(rng, type, 2 * columns, 256)
    graph = Graph("gated")
    operands = graph.input("x", x.shape), declared(graph, "w", weight)
    graph.output(graph.call("gated_linear", *operands, activation="silu"))
    program = freeze(graph)
    part = 4 * ceil(ceil(columns / 4) / parts)
    limits = Limits(binding_nbytes=largest(program) * part // (2 * columns))
    expected = FUNCTIONS["gated_linear"](*wide(x, weight), activation="silu")
    tolerance = 4 * 17 * 4 * sum_tolerance(256)
    given = {"x": x, "w": weight}
    rewritten = await check(backend, program, limits, given, [expected], tolerance)
    assert len(rewritten.parameters) == 2 * parts
    assert any(c.op == "concat" for c in rewritten.calls) == (parts > 1)


@pytest.mark.parametrize("parts", [2, 7, 8, 60])
async def test_however_many_parts_are_joined(
    backend: Backend, rng: np.random.Generator, parts: int
) -> None:
    """60 take three rounds of seven."""
    tokens, columns = Dim("T", 5), 4 * parts - 1
    weight = normal(rng, columns, 8)
    graph = Graph("many")
    w = declared(graph, "w", weight)
    graph.output(graph.call("linear", graph.input("x", (tokens, 8)), w, activation="none"))
    program = freeze(graph)
    limits = Limits(dispatch_work=5 * 8 * 4)
    rewritten, applied = fit(program, limits, model_rewrites())
    assert [t.parts for t in applied] == [parts]
    assert "multiply-adds" in applied[0].reason
    works = [5 * 8 * c.result.limits[1] for c in rewritten.calls if c.op == "linear"]
    assert max(works) <= limits.dispatch_work < 5 * 8 * columns
    assert sum(works) == 5 * 8 * columns
    maximum = max(sum(o is not None for o in c.operands) for c in rewritten.calls)
    assert maximum == max(2, min(parts, 7))
    for rows in (5, 2):
        x = normal(rng, rows, 8)
        (result,) = await run(backend, rewritten, {"x": x, "w": weight}, {"T": rows})
        np.testing.assert_allclose(result, x.astype(np.float64) @ weight.T, atol=1e-5)


IDS = np.array([[3, 41, 0, 12], [98, 99, 2**32 - 1, 57]], np.uint32)  # two past the table


@named
@pytest.mark.parametrize("added", [False, True])
async def test_an_embedding_in_parts(
    backend: Backend, rng: np.random.Generator, type: BlockType, added: bool
) -> None:
    b, t = Dim("B", 2), Dim("T", 5)
    table = weight_of(rng, type, 99, 256)
    position, bias = (normal(rng, 6, 256), normal(rng, 256)) if added else (None, None)
    graph = Graph("embedding")
    ids, w = graph.input("ids", (b, t), "u32"), declared(graph, "w", table)
    extra = (graph.parameter("p", (6, 256)), graph.parameter("b", (256,))) if added else ()
    graph.output(graph.call("embedding", ids, w, *extra))
    program = freeze(graph)
    limits = Limits(binding_nbytes=max(2 * 5 * 1024, largest(program) // 6))
    given = {"ids": IDS, "w": table}
    given |= {"p": position, "b": bias} if position is not None and bias is not None else {}
    expected = FUNCTIONS["embedding"](IDS, table, position, bias)
    await check(backend, program, limits, given, [expected], 1e-6, {"B": 2, "T": 4})
    rewritten, _ = fit(program, limits, model_rewrites())
    sizes = {"B": 2, "T": 4}
    plain, result = [await run(backend, p, given, sizes) for p in (program, rewritten)]
    # A GPU's compiler may fuse the last product and what is added to it.
    if not added or backend.tier != "webgpu":
        assert np.array_equal(plain, result)


@named
async def test_a_table_that_two_read_is_cut_once(
    backend: Backend, rng: np.random.Generator, type: BlockType
) -> None:
    """A language model's ends; in whichever order the rewrites are made."""
    table = weight_of(rng, type, 99, 256)
    tokens = np.array([3, 98, 41, 99, 2**32 - 1, 57, 1], np.uint32)
    length = Dim("T", 8)
    graph = Graph("tied")
    states = graph.state("tokens", (7,), "u32"), graph.state("position", (1,), "u32")
    w = declared(graph, "w", table)
    x = graph.call("token_embedding", w, *states, length=length)
    graph.output(x)
    graph.output(graph.call("linear", x, w, activation="none"))
    program = freeze(graph)
    given = {"w": table, "tokens": tokens, "position": np.array([12], np.uint32)}
    # By work the layer alone needs eleven parts; by bytes both would need fewer.
    maximum = max(8 * 256 * 4, largest(program) // 3)
    limits = Limits(binding_nbytes=maximum, dispatch_work=8 * 256 * 12)
    orders = [(chunked_embedding, layer_decomposition), (layer_decomposition, chunked_embedding)]
    first, second = (fit(program, limits, order) for order in orders)
    assert first[0].parameters == second[0].parameters
    assert {t.parts for t in first[1] + second[1]} == {9}
    assert {t.strategy for t in first[1]} == {"chunked_embedding", "layer_decomposition"}
    rows = FUNCTIONS["token_embedding"](table, tokens, given["position"], length=6)
    expected = [rows, FUNCTIONS["linear"](*wide(rows), table, activation="none")]
    tolerance = 16 * 4 * sum_tolerance(256)
    await check(backend, program, limits, given, expected, tolerance, {"T": 6})


async def test_the_plain_path_fails_where_the_parts_run(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    weight = random_blocks(rng, BlockType.Q8_0, 301, 256)
    ids = rng.integers(0, 301, (2, 7)).astype(np.uint32)
    graph = Graph("both")
    w = declared(graph, "w", weight)
    x = graph.call("embedding", graph.input("ids", ids.shape, "u32"), w)
    graph.output(graph.call("linear", x, w, activation="relu"))
    program = freeze(graph)
    given = {"ids": ids, "w": weight}
    whole = LimitedGpu(gpu, 1 << 27)
    (plain,) = await run(WebGpuBackend(whole), program, given)
    assert whole.largest_nbytes == program.parameters[0].nbytes == 81_872 == 301 * 272

    limited = LimitedGpu(gpu, 20_000)
    backend = WebGpuBackend(limited)
    assert backend.limits == Limits(binding_nbytes=20_000)
    with pytest.raises(GpuError, match=r"81,872 bytes, and this device allows 20,000"):
        await run(backend, program, given)
    rewritten, applied = fit(program, backend.limits, model_rewrites())
    (result,) = await run(backend, rewritten, given)
    assert np.array_equal(result, plain)
    print(f"largest binding {whole.largest_nbytes:,} before, {limited.largest_nbytes:,} after")
    assert limited.largest_nbytes <= 20_000
    assert [(t.strategy, t.parts) for t in applied] == [
        ("chunked_embedding", 5),
        ("layer_decomposition", 5),
    ]
    assert applied[0].reason == "w has 81,872 bytes, and a binding holds at most 20,000"


def linear_program(rows: int = 9, columns: int = 64) -> Program:
    graph = Graph("linear")
    w = graph.parameter("w", (columns, 256))
    graph.output(graph.call("linear", graph.input("x", (rows, 256)), w, activation="none"))
    return freeze(graph)


def test_what_keeps_the_limits_stays_as_it_is() -> None:
    program = linear_program()
    for limits in (Limits(), Limits(binding_nbytes=64 * 1024, dispatch_work=9 * 256 * 64)):
        assert fit(program, limits, model_rewrites()) == (program, ())
        rule, fitted = fit_all([program], limits)
        assert fitted == [program]
        assert rule.text == ""


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (Limits(binding_nbytes=4095), r"4 rows of w needs 4,096 bytes.*at most 4,095.*cpu"),
        (Limits(dispatch_work=9215), r"4 rows of w needs 9,216 multiply-adds.*9,215.*fewer"),
    ],
)
def test_limits_that_no_cut_can_keep(limits: Limits, told: str) -> None:
    with pytest.raises(LimitError, match=told):
        layer_decomposition(linear_program(), limits)


def test_a_result_that_no_binding_holds() -> None:
    with pytest.raises(LimitError, match=r"linear_0 needs 76,800 bytes.*65,536.*fewer"):
        layer_decomposition(linear_program(rows=300), Limits(binding_nbytes=65536))


def test_only_parameters_can_be_cut() -> None:
    graph = Graph("inputs")
    x, w = graph.input("x", (2, 256)), graph.input("w", (64, 256))
    graph.output(graph.call("linear", x, w, activation="none"))
    with pytest.raises(LimitError, match="Only parameters"):
        layer_decomposition(freeze(graph), Limits(binding_nbytes=8192))


@pytest.mark.parametrize("limit", [0, -1, nan, True, -inf])
@pytest.mark.parametrize("name", ["binding_nbytes", "memory_nbytes", "dispatch_work"])
def test_a_limit_is_above_zero(name: str, limit: float) -> None:
    with pytest.raises(InputError, match=f"limit {name}: expected a number above 0"):
        Limits(**{name: limit})


def test_all_programs_of_a_model_cut_alike() -> None:
    """By the one that needs it finest; what cannot be fitted is left out."""
    few, many = linear_program(1, 30), linear_program(30, 30)
    huge = linear_program(500, 30)
    limits = Limits(binding_nbytes=30_720, dispatch_work=256 * 30 * 8)
    rule, fitted = fit_all([few, many, huge], limits)
    assert len(fitted) == 2
    assert fitted[0].parameters == fitted[1].parameters
    assert [p.shape[0] for p in fitted[0].parameters] == [8, 8, 8, 6]
    assert {t.parts for t in rule.applied} == {4}
    with pytest.raises(LimitError, match="linear_0"):
        rule.fit(huge)
    with pytest.raises(LimitError, match="linear_0"):
        fit_all([huge, few], limits)
    assert rule.text.startswith("fallbacks taken: layer_decomposition (w ")
