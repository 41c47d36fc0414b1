"""What arrays cost: kernels, calls of the driver, bytes. Counted, not timed."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any, cast

import numpy as np
import pytest

import bascule
import bascule.array as xp
from bascule.array import array as array_module
from bascule.array.generated import Expression
from bascule.array.gpu_runner import GpuRunner
from bascule.array.graph import Node, ordered
from bascule.array.host_runner import HostRunner
from bascule.array.plan import steps
from bascule.array.rows import COMBINATIONS, ROWS
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import GpuOutOfMemoryError, LimitError
from tests.array.test_elementwise import cases


@pytest.fixture
async def device() -> AsyncIterator[bascule.Device]:
    async with await bascule.open_device("webgpu") as opened:
        yield opened


async def runner_of(device: bascule.Device) -> GpuRunner:
    return cast(GpuRunner, await device.arrays.open())


def gpu_of(device: bascule.Device) -> NativeGpu:
    return cast(Any, device.backend).gpu


async def test_a_chain_of_100_operations_is_one_kernel_and_few_calls(
    device: bascule.Device,
) -> None:
    runner = await runner_of(device)
    numbers = np.linspace(0, 1, 1000, dtype=np.float32)
    calls, kernels = [], []
    for _ in range(3):  # the first compiles, and takes memory that the others use again
        x = device.asarray(numbers)
        crossed, made = gpu_of(device).crossings, runner.n_kernels
        for i in range(50):
            x = x * 1.01 + i * 0.001
        result = await x.numpy()
        calls.append(gpu_of(device).crossings - crossed)
        kernels.append(runner.n_kernels - made)
    expected = numbers.astype(np.float64)
    for i in range(50):
        expected = expected * 1.01 + i * 0.001
    assert np.allclose(result, expected, rtol=1e-5)
    assert kernels == [1, 1, 1]
    assert calls[-1] <= 3


async def test_a_softmax_is_few_kernels(device: bascule.Device) -> None:
    runner = await runner_of(device)
    x = device.asarray(np.random.default_rng(0).standard_normal((64, 100)).astype(np.float32))
    weight = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    result = await (weight / xp.sum(weight, axis=-1, keepdims=True)).numpy()
    assert np.allclose(result.sum(-1), 1, atol=1e-5)
    assert runner.n_kernels <= 3


async def test_a_product_copies_no_operand_that_lies_dense_or_transposed(
    device: bascule.Device, rng: np.random.Generator
) -> None:
    runner = await runner_of(device)
    x = device.asarray(rng.standard_normal((9, 12)).astype(np.float32))
    row = device.asarray(rng.standard_normal(12).astype(np.float32))
    wide = device.asarray(rng.standard_normal((3, 9, 12)).astype(np.float32))
    await xp.eval(x, row, wide)
    for product in (x @ x.T, x.T @ x, x @ row, row @ x.T, wide @ x.T, wide @ wide.mT):
        made = runner.n_kernels
        await product.numpy()
        copies = 1 if product.shape == (12, 12) else 0  # of x.T, whose rows do not lie together
        assert runner.n_kernels - made == 1 + copies


async def test_many_reads_and_many_consumers_are_cut(device: bascule.Device) -> None:
    arrays = [device.asarray(np.full(5, i, np.float32)) for i in range(40)]
    total = arrays[0]
    for array in arrays[1:]:
        total = total + array
    assert (await total.numpy()).tolist() == [780.0] * 5
    x = device.asarray(np.ones(4, np.float32))
    for _ in range(300):  # each twice: doubling work if anything were computed twice
        x = (x + x * 0.5) * 0.5
    assert np.allclose(await x.numpy(), 0.75**300, rtol=1e-3)
    y = device.asarray(np.ones(4, np.float32))
    for _ in range(5000):
        y = y + 1
    assert (await y.numpy()).tolist() == [5001.0] * 4


def _grown(tier: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, int]:
    """What 1,000 operations that nothing reads give, and how many of their nodes are left."""
    monkeypatch.setattr(array_module, "MAX_DEPTH", 50)
    xp.set_default_device(tier)
    y = xp.asarray(np.arange(5, dtype=np.float32))
    np.asarray(y + 1.0)  # the device is open
    for _ in range(500):
        y = y * 1.0 + 1.0
    waiting = ordered([y._node])
    return y, len(waiting)


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
def test_a_graph_that_has_grown_large_is_computed(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, n_waiting = _grown(tier, monkeypatch)
    assert n_waiting <= 2 * 50 + 1
    assert np.asarray(y).tolist() == [500, 501, 502, 503, 504]


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_in_an_event_loop_it_is_computed_where_nothing_has_to_wait(
    tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, n_waiting = _grown(tier, monkeypatch)
    assert n_waiting <= 2 * 50 + 1
    assert (await y.numpy()).tolist() == [500, 501, 502, 503, 504]


async def test_a_device_in_use_elsewhere_lets_a_graph_grow_and_a_failure_is_the_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    xp.set_default_device("wasm")
    x = xp.asarray(np.ones(5, np.float32))
    await (x + 1.0).numpy()
    backend = xp.device("wasm").backend
    assert backend is not None
    holds, done = threading.Event(), threading.Event()

    async def hold() -> None:
        async with backend.turns.turn():
            holds.set()
            await asyncio.to_thread(done.wait)

    holder = threading.Thread(target=lambda: bascule.sync(hold()))
    holder.start()
    await asyncio.to_thread(holds.wait)
    monkeypatch.setattr(array_module, "MAX_DEPTH", 50)
    y = x
    for _ in range(200):
        y = y + 1.0
    n_waiting = len(ordered([y._node]))
    done.set()
    holder.join()
    assert n_waiting > 200
    assert (await y.numpy()).tolist() == [201] * 5

    def fails(*_: object) -> None:
        raise GpuOutOfMemoryError("nothing is left")

    with monkeypatch.context() as patch:
        patch.setattr(HostRunner, "_compute", fails)
        for _ in range(100):
            x = x + 1.0
        with pytest.raises(GpuOutOfMemoryError):
            await x.numpy()
    assert (await x.numpy()).tolist() == [101] * 5


async def test_memory_stays_flat_in_a_loop_with_reads(device: bascule.Device) -> None:
    x = device.asarray(np.ones((100, 100), np.float32))
    seen: list[int] = []
    for i in range(10_000):
        x = x * 0.999 + 0.001
        if i % 5 == 0:
            await x[0].numpy()
        if i in (100, 9_999):
            gc.collect()
            seen.append(gpu_of(device).allocated_nbytes)
    assert seen[1] <= seen[0]
    assert gpu_of(device).n_objects < 20
    del x
    gc.collect()
    assert device.arrays.memory() is not None
    assert device.memory().by_kind.get("buffers", 0) == 0


async def test_intermediate_results_share_memory(device: bascule.Device) -> None:
    x = device.asarray(np.ones((512, 512), np.float32))
    await x.numpy()
    for _ in range(20):
        x = x @ xp.permute_dims(x, (1, 0)) * (1 / 512)
    before = device.memory().now_nbytes
    await xp.eval(x)
    assert device.memory().peak_nbytes <= before + 5 * x.nbytes
    assert np.allclose(await x.numpy(), 1, rtol=1e-4)


async def test_an_array_that_does_not_fit_is_refused_with_bytes(device: bascule.Device) -> None:
    n = device.limits["maxStorageBufferBindingSize"] // 4 + 1
    x = xp.zeros(n, device=device) + 1
    with pytest.raises(LimitError, match=f"{4 * n:,} bytes"):
        await x.numpy()
    y = xp.zeros(4, device=device) + 1
    assert (await y.numpy()).tolist() == [1.0] * 4  # the device computes on


async def test_evaluating_keeps_what_is_held(device: bascule.Device) -> None:
    runner = await runner_of(device)
    x = xp.asarray([1.0, 2.0], device=device)
    y, z = xp.exp(x), xp.sum(x)
    await xp.eval(y, z)
    made = runner.n_kernels
    assert np.allclose(await y.numpy(), np.exp([1, 2]))
    assert float(z) == 3.0
    assert runner.n_kernels == made


async def test_the_wasm_tier_multiplies_matrices_with_its_kernels(
    rng: np.random.Generator,
) -> None:
    async with await bascule.open_device("wasm") as device:
        backend = cast(Any, device.backend)
        product, calls = backend.product, list[Any]()
        backend.product = lambda *operands: calls.append(operands) or product(*operands)
        x = rng.standard_normal((3, 40, 51)).astype(np.float32)
        for y in (rng.standard_normal((51, 33)), rng.standard_normal((3, 51, 33))):
            y = y.astype(np.float32)
            expected = x.astype(np.float64) @ y
            assert np.allclose(product(x, y), expected, atol=1e-4)
            result = device.asarray(x) @ xp.permute_dims(
                device.asarray(np.ascontiguousarray(y.swapaxes(-1, -2))),
                (*range(y.ndim - 2), y.ndim - 1, y.ndim - 2),
            )
            assert np.allclose(await result.numpy(), expected, atol=1e-4)
        assert len(calls) == 2
        assert product(x[:, :1], x[0].T) is None  # a row: numpy


def every_text() -> list[tuple[str, str, str]]:
    """A kernel for each row and dtype, and for each combination: text, bindings, label."""
    place = xp.device("webgpu")
    results: list[tuple[str, str, str]] = []
    for name, dtype in cases():
        operands = [xp.zeros((3, 4), dtype=dtype, device=place) for _ in range(ROWS[name].arity)]
        node = getattr(xp, name)(*(o.T for o in operands))._node
        (step,) = steps(ordered([node]), [node], 7)
        kernel = Expression(node, step.inline).kernel("array_elementwise", {"n": 12}, node.dtype)
        results.append((kernel.wgsl, kernel.bindings, kernel.label))
    for name, row in COMBINATIONS.items():
        for kind in row.identity:
            dtype = np.dtype({"b": "bool", "i": "int32", "u": "uint32", "f": "float32"}[kind])
            leaf = Node(place, "data", (), (6, 5), dtype)
            heads = {
                "array_reduce": ("chunks", "extent"),
                "array_scan": ("blocks", "span", "extent", "totals"),
            }
            if name in ("min", "max"):
                heads["array_best"] = ("chunks", "extent")
            for skeleton, fields in heads.items():
                extra = leaf if skeleton == "array_scan" else None
                head = {"n": 6, **dict.fromkeys(fields, 1)}
                kernel = Expression(leaf, frozenset(), (1,)).kernel(
                    skeleton, head, dtype, name, extra
                )
                results.append((kernel.wgsl, kernel.bindings, kernel.label))
            kernel = Expression(leaf, frozenset(), (1,)).kernel(
                "array_elementwise", {"n": 6}, dtype, name, unrolled=5
            )
            results.append((kernel.wgsl, kernel.bindings, kernel.label))
    return results


async def test_every_generated_kernel_compiles_on_naga(gpu: NativeGpu) -> None:
    texts = every_text()
    assert len(texts) > 200
    for wgsl, bindings, label in texts:
        await gpu.pipeline(wgsl, {"WORKGROUP": 64}, bindings, label)
