"""Measuring this machine's tiers for real: right numbers, bounded time, kept and dropped."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.base import Backend, WeightStore
from bascule.backend.cpu import ReferenceBackend, ReferenceExecutable
from bascule.errors import TierUnavailableError
from bascule.program.program import Program
from bascule.remembered import MemoryRemembered, open_remembered
from bascule.tiers import speeds as measuring
from bascule.tiers.openers import open_named
from bascule.tiers.speeds import SAMPLES, Sample, Speeds, measure, speeds_of, work_of
from bascule.tiers.survey import survey, surveys_made, this_machine
from bascule.tiers.switches import Switches, read_switches


@pytest.fixture(autouse=True)
def _another_machine() -> None:
    surveys_made().clear()


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_every_kind_is_measured_on_every_tier(tier: str) -> None:
    backend = await open_named(tier)
    try:
        found = await measure(backend, 10.0)
    finally:
        backend.close()
    for kind in ("product", "pass", "blocks"):
        works = [work_of(k, n) for k, n in SAMPLES if k == kind]
        assert [s.work for s in found.samples[kind]] == works
        assert all(0 < s.again_s <= s.once_s < 10 for s in found.samples[kind])


class CountingBackend(ReferenceBackend):
    """Numpy that counts its runs, and adds `error` to what each gives."""

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.runs = 0

    async def prepare(self, program: Program, weights: WeightStore, states: Any = None) -> Any:
        inner = await super().prepare(program, weights, states)
        return CountingExecutable(self, inner)


class CountingExecutable:
    host_s = 0.0

    def __init__(self, backend: CountingBackend, inner: ReferenceExecutable) -> None:
        self._backend, self._inner = backend, inner

    async def run(self, sizes: Any, inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
        self._backend.runs += 1
        found = await self._inner.run(sizes, inputs)
        return {name: array + np.float32(self._backend.error) for name, array in found.items()}

    async def submit(self, sizes: Any, inputs: Any, times: int = 1) -> None:
        await self._inner.submit(sizes, inputs, times)

    def close(self) -> None:
        self._inner.close()


async def test_what_was_measured_is_not_measured_again_until_the_machine_changes() -> None:
    remembered, backend = MemoryRemembered(), CountingBackend()
    first = await speeds_of(backend, "driver 1", remembered, 0.2)
    measured = backend.runs
    assert measured > 0
    assert await speeds_of(backend, "driver 1", remembered, 0.2) == first
    assert backend.runs == measured
    await speeds_of(backend, "driver 2", remembered, 0.2)
    assert backend.runs > measured


async def test_a_new_version_of_bascule_measures_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered, backend = MemoryRemembered(), CountingBackend()
    await speeds_of(backend, "driver 1", remembered, 0.2)
    measured = backend.runs
    monkeypatch.setattr(measuring, "__version__", "99.0")
    await speeds_of(backend, "driver 1", remembered, 0.2)
    assert backend.runs > measured


@pytest.mark.parametrize(
    "kept",
    [
        {},
        {"speeds": []},
        {"speeds": {"product": [[1000, 1e-3]]}},
        {"speeds": {"product": [[1000, 1e-3, 2e-3]]}},
        {"speeds": {"product": [[1000, float("nan"), 1e-3]]}},
        {"speeds": {"product": [[1000, 1e-3, -1.0]]}},
        {"speeds": {"product": [[1000, 1e-3, 1e-3], [10, 1e-3, 1e-3]]}},
    ],
)
async def test_what_was_kept_is_believed_only_where_it_is_sound(kept: dict[str, Any]) -> None:
    remembered, backend = MemoryRemembered(), CountingBackend()
    await remembered.put(f"speeds {bascule.__version__} cpu driver 1", kept)
    await speeds_of(backend, "driver 1", remembered, 0.2)
    assert backend.runs > 0


@pytest.mark.parametrize("budget_s", [0.0, 0.1, 1.0])
async def test_measuring_ends_with_its_budget(
    monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    backend = CountingBackend()
    # A clock by which each run takes 10 ms, whatever the machine is doing.
    monkeypatch.setattr(measuring, "perf_counter", lambda: 0.01 * backend.runs)
    found = await measure(backend, budget_s)
    # One sample of each kind there must be, at two runs each: else nothing could be compared.
    assert 0.01 * backend.runs <= budget_s + 0.06
    measured = sum(map(len, found.samples.values()))
    assert measured == {0.0: 3, 0.1: 3, 1.0: len(SAMPLES)}[budget_s]


@pytest.mark.parametrize("error", [0.5, float("nan"), float("inf")])
async def test_wrong_numbers_are_not_timed(error: float) -> None:
    with pytest.raises(TierUnavailableError, match="wrong product"):
        await measure(CountingBackend(error), 1.0)


def test_times_between_and_past_the_samples() -> None:
    row = (Sample(1000, 1e-3, 1e-4), Sample(100_000, 1e-2, 5e-3))
    speeds = Speeds({"product": row})
    assert speeds.seconds("product", 1) == 1e-3
    assert speeds.seconds("product", 1000, again=True) == 1e-4
    assert speeds.seconds("product", 10_000) == pytest.approx(10**-2.5)
    assert speeds.seconds("product", 200_000) == pytest.approx(2e-2)
    assert speeds.seconds("blocks", 10) == inf


async def test_the_survey_tells_of_every_tier() -> None:
    found = await survey(Switches(), budget_s=0.5)
    tiers = {facts.tier: facts for facts in found.tiers}
    for name in ("webgpu", "cpu"):
        assert not tiers[name].refused
        assert tiers[name].identity in found.identity
        assert tiers[name].speeds.samples
    assert tiers["webgpu"].largest_nbytes
    assert tiers["cpu"].total_nbytes
    assert tiers["webnn"].refused
    assert not found.backends


@pytest.mark.parametrize("busy", [False, True])
async def test_what_is_measured_on_a_busy_machine_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, busy: bool
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0 if busy else 0.0, 0.0, 0.0))
    found = await survey(Switches(), budget_s=0.1)
    cpu = next(facts for facts in found.tiers if facts.tier == "cpu")
    assert cpu.speeds.samples
    key = f"speeds {bascule.__version__} cpu {cpu.identity}"
    assert (await (await open_remembered()).get(key) is None) == busy


async def test_backends_are_held_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    def spying(tiers: Sequence[str]) -> dict[str, Any]:
        async def opened(_: bool) -> Backend:
            backend = CountingBackend()
            backend.close = lambda: closed.append("cpu")
            return backend

        return dict.fromkeys(tiers, opened)

    monkeypatch.setattr("bascule.tiers.openers.OPENERS", spying(["cpu"]))
    monkeypatch.setattr("bascule.tiers.survey.OPENERS", spying(["cpu"]))
    held = await survey(Switches(), budget_s=0.1, hold=True)
    assert (list(held.backends), closed) == (["cpu"], [])
    held.close()
    assert closed == ["cpu"]
    await survey(Switches(), budget_s=0.1)
    assert closed == ["cpu", "cpu"]


async def test_a_disabled_tier_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_JAX", "1")
    monkeypatch.setenv("BASCULE_MEMORY_MB", "7")
    found = await this_machine(read_switches(), budget_s=0.2)
    tiers = {facts.tier: facts for facts in found.tiers}
    assert "BASCULE_DISABLE_JAX" in tiers["webgpu"].refused
    assert tiers["cpu"].total_nbytes == 7 << 20
    assert await this_machine(read_switches()) is found
    monkeypatch.delenv("BASCULE_DISABLE_JAX")
    assert await this_machine(read_switches(), budget_s=0.2) is not found
