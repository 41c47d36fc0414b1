"""WebGPUMemoryOptimizer: the strategy that a budget chooses, and the driver's count of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import MemoryStrategy, WebGPUMemoryOptimizer
from bascule.backend.memory import MemoryBudget, PassBytes
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.errors import GpuOutOfMemoryError, InputError, LimitError, UnsupportedModelError
from bascule.tasks.loaded import NO_MEMORY
from bascule.weights.source import FileSource
from tests.goldens.llama import tiny
from tests.goldens.llama_folder import write_folder
from tests.goldens.vision import build_vit
from tests.tasks.test_quantize import widened

# Several lengths, each of several texts.
TEXTS = [f"w{4 + n % 9} " * n for n in (2, 12, 20, 38) for _ in range(9)]


def optimizer(budget_nbytes: int, **options: Any) -> WebGPUMemoryOptimizer:
    return WebGPUMemoryOptimizer(budget_nbytes, chunk_size_mb=1 / 16, **options)


def chosen_by_some_budget(every: tuple[MemoryStrategy, ...]) -> list[MemoryStrategy]:
    """Those that need less than all before them: of the others none is ever the first to fit."""
    return [
        strategy
        for at, strategy in enumerate(every)
        if all(strategy.needed_nbytes < before.needed_nbytes for before in every[:at])
    ]


async def test_each_budget_chooses_its_strategy_and_the_driver_holds_it(tmp_path: Path) -> None:
    folder = widened(tmp_path / "model", layers=5)
    able = chosen_by_some_budget(await optimizer(1 << 30).plan(folder))
    assert {s.weights for s in able} == {"as stored", "f16", "q8_0", "q4_1", "streamed"}
    assert able[-1].weights == "streamed"  # below all others, and above a refusal
    assert able[0].passes == "resident"
    last = {strategy.weights: strategy for strategy in able}  # with the fewest rows
    async with await bascule.load(folder, tier="cpu") as model:
        expected = await model.embed(TEXTS)
    scale = float(np.sqrt(np.mean(np.square(expected))))
    peaks: list[int] = []
    for strategy in (*able[:2], *last.values()):
        held = optimizer(strategy.needed_nbytes)
        async with await held.load(folder) as model:
            assert held.chosen == strategy
            assert held.rejected == {}
            result = await model.embed(TEXTS)
            peak = model.backend.memory.peak_nbytes
            assert model.stats["memory_retries"] == 0  # it was planned, not found out
        print(f"{strategy.name}: {strategy.needed_nbytes:,} needed, {peak:,} at most")
        assert peak <= strategy.needed_nbytes
        # Counted in full: trials, though kernels may be proven already, and buckets of all lengths.
        assert peak > 0.4 * strategy.needed_nbytes
        assert np.abs(result - expected).max() / scale <= strategy.deviation
        peaks.append(peak)
    assert peaks == sorted(set(peaks), reverse=True)


async def test_budgets_between_two_peaks_choose_the_smaller_strategy(tmp_path: Path) -> None:
    folder = widened(tmp_path / "model", layers=1)
    able = chosen_by_some_budget(await optimizer(1 << 30).plan(folder))
    # The smallest budget, so that few strategies fit and are measured.
    small = optimizer(able[-2].needed_nbytes)
    measured = await small.measure(folder, TEXTS[:12])
    fit = [s for s in measured if s.peak_nbytes is not None]
    assert [s.name for s in fit] == [
        s.name for s in measured if s.needed_nbytes <= small.budget_nbytes
    ]
    assert {able[-2].name, able[-1].name} <= {s.name for s in fit}
    for strategy in fit:
        assert strategy.peak_nbytes is not None
        assert 0 < strategy.peak_nbytes <= small.budget_nbytes
        assert strategy.seconds is not None
        assert strategy.seconds > 0
    assert fit[0].measured_deviation == 0
    between = optimizer((able[-2].needed_nbytes + able[-1].needed_nbytes) // 2)
    async with await between.load(folder) as model:
        assert between.chosen == able[-1]
        await model.embed(TEXTS)
        assert model.backend.memory.peak_nbytes <= between.budget_nbytes


async def test_an_impossible_budget_is_refused_before_a_weight_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = widened(tmp_path / "model", layers=1)
    streamed: list[str] = []
    plain = FileSource.stream

    async def stream(self: FileSource, file: str, *rest: Any) -> None:
        streamed.append(file)
        await plain(self, file, *rest)

    monkeypatch.setattr(FileSource, "stream", stream)
    minimum = min(s.needed_nbytes for s in await optimizer(1).plan(folder))
    with pytest.raises(LimitError, match=f"{minimum:,} bytes .*{minimum - 1:,} are allowed"):
        await optimizer(minimum - 1).load(folder)
    assert streamed == []
    async with await optimizer(minimum).load(folder):
        assert streamed == ["model.safetensors"]


async def test_a_strategy_that_does_not_fit_after_all_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = widened(tmp_path / "model", layers=1)
    monkeypatch.setattr("bascule.compat.memory_plan.quantizing_nbytes", lambda *_: 0)
    monkeypatch.setattr(WebGpuBackend, "pass_nbytes", lambda *_: PassBytes())
    every = await optimizer(1).plan(folder)
    every = tuple(strategy for strategy in every if strategy.weights == "q4_1")
    held = optimizer(every[-1].needed_nbytes)  # the weights in 4 bits, and nothing else
    with pytest.raises(LimitError, match="q4_1, resident: GPU alloc failed: out of memory"):
        await held.load(folder)
    assert held.chosen is None
    assert list(held.rejected) == [every[-1].name]


async def test_a_language_models_cache_is_shortened_where_that_is_allowed(tmp_path: Path) -> None:
    folder = write_folder(tiny("tiny-q4_1").path, tmp_path / "llama")
    async with await bascule.load(folder, tier="webgpu") as model:
        length = model.max_length
        prompt, options = list(range(1, 40)), {"max_new_tokens": 6, "temperature": 0}
        expected = (await model.generate(prompt, **options)).ids
    every = await optimizer(1).plan(folder)
    assert {s.context_length for s in every} == {length}
    assert any(s.passes == "prompts by 16 tokens" for s in every)
    shorter = await optimizer(1, shortest_context=64).plan(folder)
    contexts = [s.context_length for s in shorter if s.weights == "as stored"]
    assert contexts[0] == length
    assert 64 <= contexts[-1] <= 128  # one that saves next to nothing is left out
    stored = [s for s in chosen_by_some_budget(shorter) if s.weights == "as stored"]
    for strategy in (stored[0], stored[-1]):
        held = optimizer(strategy.needed_nbytes, shortest_context=64)
        async with await held.load(folder) as model:
            assert held.chosen == strategy
            assert model.max_length == strategy.context_length
            result = await model.generate(prompt, **options)
            assert result.ids == expected
            peak = model.backend.memory.peak_nbytes
            print(f"{strategy.name}: {strategy.needed_nbytes:,} needed, {peak:,} at most")
            # Counted in full: a cache that grows to the whole context, and every kind of sampling.
            assert 0.4 * strategy.needed_nbytes < peak <= strategy.needed_nbytes
            assert model.stats["memory_retries"] == 0
    # Blocks stay the blocks that the file has.
    blocks = await optimizer(1).plan(tiny("tiny-q4_1").path)
    assert {s.weights for s in blocks} == {"as stored", "streamed"}


async def test_the_driver_makes_no_buffer_past_its_limit() -> None:
    async with await bascule.open_device("webgpu") as device:
        x = await device.buffer(np.ones(1000, np.float32))
        await x.numpy()  # leaves a staging buffer for the next read
        held = device.memory().now_nbytes
        assert (kept := device.memory().by_kind["staging"]) >= 4000
        device.backend.limit_memory(MemoryBudget(held))
        y = await device.buffer(np.ones(1000, np.float32))  # in the staging buffer's place
        assert device.memory().now_nbytes == held + 4000 - kept
        with pytest.raises(GpuOutOfMemoryError, match=f"of {held:,} are in use"):
            await device.buffer(np.ones(1000, np.float32))
        with pytest.raises(GpuOutOfMemoryError):
            await y.numpy()  # reading takes a staging buffer
        device.backend.limit_memory(None)
        assert (await y.numpy()).sum() == 1000


@pytest.mark.parametrize("tier", ["webgpu", "wasm", "cpu"])
async def test_one_budget_limits_every_tier(tier: str) -> None:
    """What a pool shares and what a model is held to is one limit: the latest one counts."""
    rooms: list[int] = []

    def make_room() -> bool:
        rooms.append(1)
        return False

    async with await bascule.open_device(tier) as device:
        device.backend.limit_memory(MemoryBudget(1 << 30, make_room))
        x = await device.buffer(np.ones(1000, np.float32))
        assert rooms == []
        device.backend.limit_memory(MemoryBudget(6000, make_room))
        with pytest.raises(NO_MEMORY, match=r"[\d,]+ bytes of 6,000 are in use"):
            await device.buffer(np.ones(1000, np.float32))
        assert rooms == [1]
        x.close()
        await device.buffer(np.ones(1000, np.float32))


async def test_what_cannot_be_planned(tmp_path: Path) -> None:
    for wrong in ({"tier": "cpu"}, {"shortest_context": 1}):
        with pytest.raises(InputError):
            optimizer(1 << 20, **wrong)
    with pytest.raises(InputError, match="budget_nbytes"):
        WebGPUMemoryOptimizer(0)
    with pytest.raises(UnsupportedModelError, match="encoders, classifiers and language models"):
        await optimizer(1 << 30).plan(build_vit(tmp_path / "vit"))
