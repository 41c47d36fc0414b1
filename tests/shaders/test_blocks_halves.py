"""blocks_tile with tiles in halves: as exact as in f32, and only where the adapter has halves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.backend.webgpu import kernels as table
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import Choices
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernels import candidates
from bascule.base.dtypes import BLOCKS, BlockType, DType
from bascule.base.entries import MemoryRemembered
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from tests.shaders.harness import KINDS, check_op, dims, disguise, normal, padded
from tests.shaders.test_blocks import TYPES, random_blocks, tolerance

EXACT = [type for type in TYPES if type is not BlockType.BF16]
# Rows and columns that are one tile's share.
TILES = {"8x8": (32, 64), "8x4": (16, 64), "8x16": (64, 64)}


@pytest.fixture(params=TILES)
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Leaves this tile in halves alone in the table; its share."""
    for op in ("linear", "gated_linear"):
        real = table._ROWS[op]

        def row(call: Any, adapter: AdapterInfo, real: Any = real) -> Any:
            wanted = f"blocks_tile {request.param} f16"
            return [make for make in real(call, adapter) if make().variant == wanted]

        monkeypatch.setitem(table._ROWS, op, row)
    return TILES[request.param]


@pytest.mark.parametrize("type", EXACT, ids=lambda type: type.name)
async def test_formats(
    gpu: NativeGpu, rng: np.random.Generator, tile: tuple[int, int], type: BlockType
) -> None:
    # Past the edges of a tile by one, and the last block of a row ends inside a word.
    rows, cols = tile[0] + 1, tile[1] + 1
    x, weight = normal(rng, rows, 256), random_blocks(rng, type, cols, 256)
    await check_op(
        gpu, "hardware", "linear", [x, weight], tolerance=tolerance(256), activation="none"
    )


@pytest.mark.parametrize("edge", [(-1, -1, 32), (0, 0, 576), (1, -63, 96)], ids=str)
async def test_edges(
    gpu: NativeGpu, rng: np.random.Generator, tile: tuple[int, int], edge: tuple[int, int, int]
) -> None:
    rows, cols, inner = tile[0] + 5 + edge[0], tile[1] + edge[1], edge[2]
    x, weight = normal(rng, rows, inner), random_blocks(rng, BlockType.Q4_1, cols, inner)
    inputs = [x, weight, normal(rng, cols), normal(rng, rows, cols)]
    allowed = 2 * tolerance(inner)
    await check_op(gpu, "hardware", "linear", inputs, tolerance=allowed, activation="gelu")


async def test_gated_and_fewer_rows_than_the_bucket(
    gpu: NativeGpu, rng: np.random.Generator, tile: tuple[int, int]
) -> None:
    (t,) = dims(T=2 * tile[0] + 1)
    for rows in (1, tile[0] + 3):
        x, weight = normal(rng, rows, 64), random_blocks(rng, BlockType.Q8_0, 2 * 37, 64)
        await check_op(
            gpu,
            "hardware",
            "gated_linear",
            [x, weight],
            tolerance=4 * 8 * tolerance(64),
            activation="silu",
            limits=[(t, 64), None],
            sizes={"T": rows},
        )


# Halves end at 65504 and have nothing between 0 and 6e-8: x is never one.
@pytest.mark.parametrize("size", [1e6, 1e30, 1e-6, 1e-30])
async def test_large_and_tiny_x(
    gpu: NativeGpu, rng: np.random.Generator, tile: tuple[int, int], size: float
) -> None:
    x = normal(rng, tile[0] + 1, 96) * np.float32(size)
    weight = random_blocks(rng, BlockType.Q4_1, 5, 96)
    await check_op(
        gpu,
        "hardware",
        "linear",
        [x, weight],
        tolerance=tolerance(96),
        unit=size,
        activation="none",
    )


async def test_the_largest_scales(
    gpu: NativeGpu, rng: np.random.Generator, tile: tuple[int, int]
) -> None:
    # A weight may be 15 times as large as the largest half: in halves it would be infinite.
    weight = random_blocks(rng, BlockType.Q4_1, 5, 64)
    blocks = weight.data.reshape(-1, BLOCKS[BlockType.Q4_1].nbytes).copy()
    blocks[:, :4] = np.array([65504, -65504], "<f2").view(np.uint8)
    weight = replace(weight, data=blocks.reshape(-1))
    x = normal(rng, tile[0] + 1, 64)
    await check_op(
        gpu,
        "hardware",
        "linear",
        [x, weight],
        tolerance=tolerance(64),
        unit=15 * 65504.0,
        activation="none",
    )


def _product(dtype: DType, rows: int = 64) -> Program:
    graph = Graph("product")
    x, weight = graph.input("x", (rows, 256)), graph.parameter("weight", (24, 256), dtype=dtype)
    graph.output(graph.call("linear", x, weight, activation="none"))
    return freeze(graph)


def _in_halves(adapter: AdapterInfo, dtype: DType, rows: int = 64) -> list[str]:
    """Names of the candidates in halves."""
    kernels = candidates(_product(dtype, rows).calls[0], adapter)
    assert "enable f16;" not in kernels[0].wgsl  # the default is a kernel that all adapters take
    return [k.variant for k in kernels if "enable f16;" in k.wgsl]


@pytest.mark.parametrize("type", TYPES, ids=lambda type: type.name)
def test_offered_where_halves_are_and_hold_the_weights(gpu: NativeGpu, type: BlockType) -> None:
    dtype: DType = type.name.lower()  # type: ignore[assignment]
    assert "shader-f16" in gpu.adapter.features
    for kind in KINDS:
        adapter = disguise(gpu.adapter, kind)
        offered = type in EXACT and kind == "hardware"
        assert len(_in_halves(adapter, dtype)) == (len(TILES) if offered else 0)
        assert _in_halves(adapter, dtype, rows=1) == []


def test_a_tall_tile_fits_webgpus_least_limit_in_halves_only(gpu: NativeGpu) -> None:
    limits = {**gpu.adapter.limits, "maxComputeWorkgroupStorageSize": 16384}
    adapter = replace(disguise(gpu.adapter, "hardware"), limits=limits)
    kernels = candidates(_product("q4_1").calls[0], adapter)
    assert [k.variant for k in kernels if "8x16" in k.variant] == ["blocks_tile 8x16 f16"]


async def test_tuning_measures_them_and_finds_nothing_wrong(gpu: NativeGpu) -> None:
    gpu.adapter = disguise(gpu.adapter, "hardware")
    report = await WebGpuBackend(gpu).tune([_product("q4_1")], budget_s=120)
    (finding,) = report.findings
    assert not report.wrong
    assert {f"blocks_tile {tile} f16" for tile in TILES} < finding.times.keys()


async def test_a_refusal_leads_to_the_plain_tile_and_is_remembered(
    tint: NativeGpu, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Tint refuses halves on an adapter without them: a real refusal, once the table is told a lie.
    lie = tint.adapter.features | {"shader-f16"}
    tint.adapter = replace(tint.adapter, software=False, features=lie)
    real = table._ROWS["linear"]

    def halves_first(call: Any, adapter: AdapterInfo) -> Any:
        return sorted(real(call, adapter), key=lambda make: not make().variant.endswith(" f16"))

    monkeypatch.setitem(table._ROWS, "linear", halves_first)
    remembered, program = MemoryRemembered(), _product("q4_1")
    x, weight = normal(rng, 64, 256), random_blocks(rng, BlockType.Q4_1, 24, 256)
    for tries in (len(TILES), 0):  # two visits
        choices = await Choices.open(remembered, tint.adapter)
        backend = WebGpuBackend(tint, choices)
        store = backend.store(program.parameters)
        store.write(store.targets["weight"], 0, padded(weight.data))
        executable = await backend.prepare(program, store)
        (result,) = (await executable.run({}, {"x": x})).values()
        np.testing.assert_allclose(result, x @ weight.rows(0, 24).T, rtol=1e-4, atol=1e-3)
        assert backend.pipelines.n_failed == tries
        assert backend.stats["pipeline_retries_of_failed"] == 0
        names = {failure.variant for failure in choices.failed.values()}
        assert names == {f"blocks_tile {tile} f16" for tile in TILES}
        executable.close()
        store.close()
