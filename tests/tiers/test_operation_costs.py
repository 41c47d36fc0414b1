"""Costs by kind of operation: sampled on each tier, remembered, and what choices rest on."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bascule import BackendType, IntelligentBackendSelector, WorkloadCharacteristics
from bascule.base.remembered import open_remembered
from bascule.choosing.speeds import Sample
from bascule.choosing.survey import Survey, TierFacts
from bascule.compat import operation_costs, selector
from bascule.compat.operation_costs import (
    Costs,
    OperationKind,
    costs_of,
    expected_seconds,
    kind_of_operation,
)
from tests.tiers.machines import CPU, planted

KINDS: tuple[OperationKind, ...] = (
    "elementwise", "reduction", "fft", "sort", "derivative", "iterative",
)  # fmt: skip
FAST_GPU = Survey((planted("webgpu", per_work_s=1e-11), CPU))
HERE = Survey((TierFacts("webgpu", "it is planted away"), planted("wasm"), planted("cpu")))


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BASCULE_REMEMBERED", str(tmp_path / "remembered"))


def idle() -> bool:
    return False


def line(once_s: float, per_work_s: float) -> tuple[Sample, ...]:
    works = (10**3, 10**5, 10**7)
    return tuple(Sample(w, once_s + w * per_work_s, w * per_work_s) for w in works)


def test_the_choice_follows_the_cost_of_its_kind() -> None:
    """One machine, one size: the GPU wins at some kinds and loses at others."""
    cheap, dear = line(0.0, 1e-10), line(0.0, 1e-8)
    wins: dict[OperationKind, bool] = dict(zip(KINDS, [True, False] * 3, strict=True))
    costs: dict[OperationKind, Costs] = {
        kind: {"webgpu": cheap if won else dear, "cpu": line(0.0, 1e-9)}
        for kind, won in wins.items()
    }
    chooser = IntelligentBackendSelector(known=FAST_GPU, costs=costs)
    size = 10**6
    for kind, won in wins.items():
        chosen = chooser.select_backend(WorkloadCharacteristics(kind, size, (1000, 1000)))
        assert chosen is (BackendType.WEBGPU if won else BackendType.CPU), kind
        assert "of its kind" in str(chooser.decisions[-1])
    # With one cost for all of them, that of a pass, all would be the GPU's.
    alike = IntelligentBackendSelector(known=FAST_GPU)
    work = [WorkloadCharacteristics(kind, 10**8, (10**4, 10**4)) for kind in KINDS]
    assert {alike.select_backend(each) for each in work} == {BackendType.WEBGPU}


def test_a_tier_without_samples_of_a_kind_comes_last() -> None:
    costs: dict[OperationKind, Costs] = {"sort": {"webgpu": (), "cpu": line(0.0, 1e-6)}}
    chooser = IntelligentBackendSelector(known=FAST_GPU, costs=costs)
    assert chooser.select_backend(WorkloadCharacteristics("sort", 10**9)) is BackendType.CPU


def test_words_name_a_kind() -> None:
    names = {
        "fft": "fft", "FFT2": "fft", "sort": "sort", "argsort": "sort", "reduction": "reduction",
        "sum": "reduction", "element_wise": "elementwise", "elementwise": "elementwise",
        "derivative": "derivative", "caputo_derivative": "derivative", "ode_solve": "iterative",
        "iterative": "iterative", "neural_network": None, "matmul": None, "conv": None,
        "other": None, "sorted_of_things": None,
    }  # fmt: skip
    assert {name: kind_of_operation(name) for name in names} == names


def test_work_grows_as_the_kind_does() -> None:
    def seconds(*told: Any, again: bool = False) -> float:
        workload = WorkloadCharacteristics(*told, is_iterative=again)
        return expected_seconds(line(1e-2, 1e-9), workload)

    assert seconds("sum", 10**5, (10**5,)) == pytest.approx(1.01e-2)
    assert seconds("sort", 1 << 20, (1024, 1024)) < seconds("sort", 1 << 20, (1 << 20,))
    # Sent once, whatever the steps; 1,000 steps of 10**5 numbers.
    solved = seconds("ode_solve", 10**8, (1000, 10**5))
    assert solved == pytest.approx(1e-2 + 1000 * 1e-4, rel=1e-3)
    assert seconds("ode_solve", 10**8, (1000, 10**5), again=True) == pytest.approx(0.1)
    assert seconds("iterative", 10**7) == pytest.approx(1e-2 + 20 * 1e-2)
    assert seconds("fft", 0) > 0


async def test_samples_are_taken_once_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = {kind: await costs_of(kind, HERE, busy=idle) for kind in KINDS}
    for kind, result in costs.items():
        assert result is not None
        assert set(result) == {"wasm", "cpu"}, kind
        assert all(len(samples) >= 2 for samples in result.values())
    # 131,072 numbers transformed take a hundred times as long as summed up.
    fft, total = costs["fft"], costs["reduction"]
    assert fft is not None
    assert total is not None
    assert fft["cpu"][-1].once_s > total["cpu"][-1].once_s

    async def never(*_: object) -> tuple[Sample, ...]:
        raise AssertionError("it is remembered")

    with monkeypatch.context() as patch:
        patch.setattr(operation_costs, "_measured", never)
        again = {kind: await costs_of(kind, HERE, busy=idle) for kind in KINDS}
        assert again == costs
    # What is damaged is measured again.
    store = await open_remembered()
    key = operation_costs.costs_key(HERE.tiers[2])
    await store.put(key, {"kinds": {"sum": 1, "fft": [[1, -1.0, 0.5]]}})
    mended = await costs_of("fft", HERE, busy=idle)
    assert mended is not None
    assert mended["cpu"]


async def test_a_busy_or_unmeasured_machine_is_not_sampled() -> None:
    assert await costs_of("fft", HERE, busy=lambda: True) is None
    typical = replace(HERE.tiers[2].speeds, source="typical elsewhere (planted)")
    machine = Survey((replace(HERE.tiers[2], speeds=typical),))
    assert await costs_of("fft", machine, busy=idle) is None


async def test_a_tier_that_refuses_has_no_samples() -> None:
    gone = Survey((replace(planted("webgpu"), tier="no-such-tier"), planted("cpu")))  # type: ignore[arg-type]
    assert set(await costs_of("sort", gone, busy=idle) or ()) == {"cpu"}


async def test_where_a_loop_runs_samples_are_taken_behind_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[OperationKind] = []

    async def costs(kind: OperationKind, found: Survey) -> Costs:
        asked.append(kind)
        await asyncio.sleep(0)
        return {"webgpu": line(0.0, 1e-6), "cpu": line(0.0, 1e-9)}

    async def machine(*_: object, **__: object) -> Survey:
        return FAST_GPU

    monkeypatch.setattr(selector, "costs_of", costs)
    monkeypatch.setattr(selector, "this_machine", machine)
    chooser = await IntelligentBackendSelector(enable_learning=False).ready(operations=["sort"])
    assert asked == ["sort"]
    work = WorkloadCharacteristics("fft", 10**8, (10**8,))
    assert chooser.select_backend(work) is BackendType.WEBGPU  # as a pass, until it is sampled
    for _ in range(5):
        await asyncio.sleep(0)
    assert chooser.select_backend(work) is BackendType.CPU
    assert chooser.select_backend(work._replace(operation_type="sort")) is BackendType.CPU
    assert asked == ["sort", "fft"]
