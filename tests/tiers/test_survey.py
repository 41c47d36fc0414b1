"""Measuring this machine's tiers for real: right numbers, bounded time, kept and dropped."""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.base import Backend, Tier, WeightStore
from bascule.backend.cpu import ReferenceBackend, ReferenceExecutable
from bascule.backend.host_arrays import written
from bascule.base.entries import MemoryRemembered
from bascule.choosing import measuring, speed_records
from bascule.choosing.auto import ModelNeed, decision_for
from bascule.choosing.measured_programs import measured_program, work_of
from bascule.choosing.measuring import SAMPLES, measure
from bascule.choosing.openers import open_named
from bascule.choosing.speed_records import speeds_of
from bascule.choosing.speeds import KINDS, Kind, Sample, Speeds, typical_speeds, why_typical
from bascule.choosing.survey import survey, surveys_made, this_machine
from bascule.choosing.switches import Switches, read_switches
from bascule.choosing.work import work_of_program
from bascule.choosing.workload import BackendType
from bascule.errors import DeviceLostError, GpuError, TierUnavailableError
from bascule.program.program import Program


@pytest.fixture(autouse=True)
def _another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    surveys_made().clear()
    # Whatever else this machine is doing.
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> CountingBackend:
    """A backend of which each run takes 1 ms by the clock that measures it."""
    backend = CountingBackend()
    monkeypatch.setattr(measuring, "perf_counter", lambda: 0.001 * backend.runs)
    monkeypatch.setattr(measuring, "_PAUSE_S", 0.0)
    return backend


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_every_kind_is_measured_on_every_tier(tier: str) -> None:
    backend = await open_named(tier)
    try:
        result, whole = await measure(backend, 600.0)
    finally:
        backend.close()
    assert whole
    for kind in ("product", "pass", "blocks"):
        works = [work_of(k, n) for k, n in SAMPLES if k == kind]
        assert [s.work for s in result.samples[kind]] == works
        assert all(0 < s.again_s <= s.once_s < 10 for s in result.samples[kind])


class CountingBackend(ReferenceBackend):
    """Numpy that counts its runs, and adds `error` to what each gives. After `lost_after` runs its
    device is lost.
    """

    def __init__(self, error: float = 0.0) -> None:
        super().__init__()
        self.error = error
        self.runs = 0
        self.lost_after: float = inf
        # What runs raise from then on; None if they go on as if nothing were.
        self.error_of_loss: Exception | None = None

    async def prepare(self, program: Program, weights: WeightStore, states: Any = None) -> Any:
        inner = await super().prepare(program, weights, states)
        return CountingExecutable(self, inner)


class CountingExecutable:
    host_s = 0.0

    def __init__(self, backend: CountingBackend, inner: ReferenceExecutable) -> None:
        self._backend, self._inner = backend, inner

    async def run(self, sizes: Any, inputs: Any, into: Any) -> dict[str, Any]:
        self._backend.runs += 1
        if self._backend.runs > self._backend.lost_after:
            self._backend.lost = "planted"
            if self._backend.error_of_loss is not None:
                raise self._backend.error_of_loss
        result = await self._inner.run(sizes, inputs)
        changed = {name: array + np.float32(self._backend.error) for name, array in result.items()}
        return written(changed, into)

    async def submit(self, sizes: Any, inputs: Any, times: int = 1) -> None:
        self._backend.runs += times
        await self._inner.submit(sizes, inputs, times)

    def close(self) -> None:
        self._inner.close()


async def test_what_was_measured_is_not_measured_again_until_the_machine_changes(
    counted: CountingBackend,
) -> None:
    remembered = MemoryRemembered()
    first = await speeds_of(counted, "driver 1", remembered, 1.0)
    measured = counted.runs
    assert measured > 0
    assert await speeds_of(counted, "driver 1", remembered, 1.0) == first
    assert counted.runs == measured
    await speeds_of(counted, "driver 2", remembered, 1.0)
    assert counted.runs > measured


async def test_a_new_version_of_bascule_measures_anew(
    monkeypatch: pytest.MonkeyPatch, counted: CountingBackend
) -> None:
    remembered = MemoryRemembered()
    await speeds_of(counted, "driver 1", remembered, 1.0)
    measured = counted.runs
    monkeypatch.setattr(speed_records, "__version__", "99.0")
    await speeds_of(counted, "driver 1", remembered, 1.0)
    assert counted.runs > measured


async def test_a_measurement_that_was_cut_off_is_not_remembered(counted: CountingBackend) -> None:
    remembered = MemoryRemembered()
    assert (await speeds_of(counted, "driver 1", remembered, 0.001)).samples
    measured = counted.runs
    await speeds_of(counted, "driver 1", remembered, 0.001)
    assert counted.runs > measured


@pytest.mark.parametrize("bad_runs", [(1, 60), (40, 90), (90, 130)])
async def test_a_busy_moment_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, bad_runs: tuple[int, int]
) -> None:
    """A third of a measurement at a thirtieth of the speed: the least of the rounds counts."""
    backend = CountingBackend()
    first, last = bad_runs
    # Seconds by the number of runs: 1 ms each, but 30 ms in the busy moment.
    monkeypatch.setattr(
        measuring,
        "perf_counter",
        lambda: 0.001 * backend.runs + 0.029 * min(max(backend.runs - first, 0), last - first),
    )
    monkeypatch.setattr(measuring, "_PAUSE_S", 0.0)
    result, whole = await measure(backend, 600.0)
    assert whole
    assert backend.runs > last
    for row in result.samples.values():
        assert [s.once_s for s in row] == [pytest.approx(0.001)] * len(row)
        assert [s.again_s for s in row] == [pytest.approx(0.001)] * len(row)


@pytest.mark.parametrize("lost_after", [0, 5, 40, 100])
@pytest.mark.parametrize("error", [DeviceLostError("planted"), GpuError("run", "planted"), None])
async def test_a_device_that_is_lost_meanwhile_leaves_no_record(
    counted: CountingBackend, lost_after: int, error: Exception | None
) -> None:
    remembered = MemoryRemembered()
    counted.lost_after, counted.error_of_loss = lost_after, error
    with pytest.raises(DeviceLostError, match="planted"):
        await speeds_of(counted, "driver 1", remembered, 1.0)
    assert await remembered.get(speed_records.speed_key("cpu", "driver 1")) is None


GOOD = {"product": [[1000, 1e-3, 1e-3]]}


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
        {"speeds": GOOD, "factors": []},
        {"speeds": GOOD, "factors": {"product small": 0}},
        {"speeds": GOOD, "factors": {"product small": 10**400}},
        {"speeds": GOOD, "factors": {"product small": float("nan")}},
        {"speeds": GOOD, "contradictions": {}},
        {"speeds": GOOD, "contradictions": [[1, "product small"]]},
        {"speeds": GOOD, "contradictions": [[10**400, "product small", 4.0]]},
        {"speeds": GOOD, "contradictions": [[1, "product small", float("inf")]]},
    ],
)
async def test_what_was_kept_is_believed_only_where_it_is_sound(
    kept: dict[str, Any], counted: CountingBackend
) -> None:
    remembered = MemoryRemembered()
    await remembered.put(f"speeds {bascule.__version__} cpu driver 1", {"speeds": GOOD})
    await speeds_of(counted, "driver 1", remembered, 1.0)
    assert counted.runs == 0
    await remembered.put(f"speeds {bascule.__version__} cpu driver 1", kept)
    await speeds_of(counted, "driver 1", remembered, 1.0)
    assert counted.runs > 0


@pytest.mark.parametrize(
    ("budget_s", "n_samples", "expected"),
    [(0.0, 3, False), (0.05, 3, False), (0.1, 3, True), (2.0, len(SAMPLES), True)],
)
async def test_measuring_ends_with_its_budget(
    monkeypatch: pytest.MonkeyPatch, budget_s: float, n_samples: int, expected: bool
) -> None:
    backend = CountingBackend()
    # A clock by which each run takes 10 ms, whatever the machine is doing.
    monkeypatch.setattr(measuring, "perf_counter", lambda: 0.01 * backend.runs)
    monkeypatch.setattr(measuring, "_PAUSE_S", 0.0)
    result, whole = await measure(backend, budget_s)
    # One sample of each kind there must be, at two runs each: else nothing could be compared.
    assert 0.01 * backend.runs <= max(6 * budget_s, budget_s + 0.06)
    assert whole == expected
    assert sum(map(len, result.samples.values())) == n_samples


class PacedBackend(CountingBackend):
    """Its clock: opening takes `opening_s`, a run `once_s` and each 1e9 of work `unit_s`, and 20
    times that in programs of more work than `strain_from`, which no smaller one lets expect.
    """

    def __init__(
        self, opening_s: float, once_s: float, unit_s: float, strain_from: float = inf
    ) -> None:
        super().__init__()
        self.opening_s, self.once_s, self.unit_s = opening_s, once_s, unit_s
        self.strain_from = strain_from
        self.now = 0.0

    async def prepare(self, program: Program, weights: WeightStore, states: Any = None) -> Any:
        self.now += self.opening_s
        inner = await super().prepare(program, weights, states)
        work = work_of_program(program)[0]
        strained = work > self.strain_from
        run, submit = inner.run, inner.submit

        async def paced_run(*arguments: Any) -> Any:
            self.now += self.once_s + (20 if strained else 1) * self.unit_s * work / 1e9
            return await run(*arguments)

        async def paced_submit(sizes: Any, inputs: Any, times: int) -> None:
            self.now += (20 if strained else 1) * times * self.unit_s * work / 1e9
            await submit(sizes, inputs, times)

        inner.run, inner.submit = paced_run, paced_submit
        return inner


@pytest.mark.parametrize(
    ("backend", "largest"),
    [
        (PacedBackend(0.3, 1e-3, 1e-3), 512),  # a GPU whose compiler is slow
        (PacedBackend(0.01, 0.1, 1e-3), 32),  # one that is read every 100 ms
        (PacedBackend(0.01, 1e-5, 0.5), 128),  # numpy in a page
        (PacedBackend(0.1, 5e-3, 10.0), 32),  # a slow device
        (PacedBackend(0.01, 1e-4, 1e-1, strain_from=1e7), 128),
    ],
)
async def test_any_healthy_machine_leaves_a_record_at_its_first_measurement(
    monkeypatch: pytest.MonkeyPatch, backend: PacedBackend, largest: int
) -> None:
    monkeypatch.setattr(measuring, "perf_counter", lambda: backend.now)
    remembered = MemoryRemembered()
    share_s = 1.5 / 4
    result = await speeds_of(backend, "driver 1", remembered, share_s)
    assert result.samples["product"][-1].work == largest**3
    record = await speed_records.speed_record("cpu", "driver 1", remembered)
    assert record is not None
    assert record.speeds == result
    measured = backend.runs
    assert await speeds_of(backend, "driver 1", remembered, share_s) == result
    assert backend.runs == measured


@pytest.mark.parametrize(("kind", "n"), SAMPLES)
async def test_what_is_right_is_as_numpy_computes_it(kind: Kind, n: int) -> None:
    measured = measured_program(kind, n)
    backend = ReferenceBackend()
    store = backend.store(measured.program.parameters)
    if measured.weight is not None:
        store.write(store.targets["w"], 0, measured.weight)
    executable = await backend.prepare(measured.program, store)
    [result] = (await executable.run({}, measured.inputs)).values()
    numbers = result.ravel()
    assert measured.fault(memoryview(numbers)) == ""
    assert len(set(numbers.tolist())) > min(100, len(numbers) // 11)
    wrong = numbers.copy()
    wrong[: len(wrong) // 8] = np.nan
    assert f"a wrong {kind}" in measured.fault(memoryview(wrong))


@pytest.mark.parametrize("error", [0.5, float("nan"), float("inf")])
async def test_wrong_numbers_are_not_timed(error: float) -> None:
    with pytest.raises(TierUnavailableError, match="wrong product"):
        await measure(CountingBackend(error), 1.0)


@pytest.mark.parametrize("error", [0.0, 0.5, float("nan")])
async def test_a_tier_that_is_not_measured_has_its_numbers_checked(error: float) -> None:
    backend, remembered = CountingBackend(error), MemoryRemembered()

    async def speeds() -> Speeds:
        return await speeds_of(backend, "planted", remembered, 1.0, alone=True)

    if error:
        with pytest.raises(TierUnavailableError, match="wrong product"):
            await speeds()
    else:
        assert (await speeds()).source.startswith("typical elsewhere")
        assert backend.runs == 2 * len({kind for kind, _ in SAMPLES})


def test_times_between_and_past_the_samples() -> None:
    row = (Sample(1000, 1e-3, 1e-4), Sample(100_000, 1e-2, 5e-3))
    speeds = Speeds({"product": row})
    assert speeds.seconds("product", 1) == 1e-3
    assert speeds.seconds("product", 1000, again=True) == 1e-4
    assert speeds.seconds("product", 10_000) == pytest.approx(10**-2.5)
    assert speeds.seconds("product", 200_000) == pytest.approx(2e-2)
    assert speeds.seconds("blocks", 10) == inf


async def test_the_survey_tells_of_every_tier() -> None:
    result = await survey(Switches(), budget_s=0.5)
    tiers = {facts.tier: facts for facts in result.tiers}
    for name in ("webgpu", "cpu"):
        assert not tiers[name].refused
        assert tiers[name].identity in result.identity
        assert tiers[name].speeds.samples
    assert tiers["webgpu"].largest_nbytes
    assert tiers["cpu"].total_nbytes
    assert tiers["webnn"].refused
    assert not result.backends


async def test_a_busy_machine_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))

    async def measured(*_: Any) -> None:
        raise AssertionError("it was measured")

    with monkeypatch.context() as patch:
        patch.setattr(speed_records, "measure", measured)
        result = await survey(Switches(), budget_s=30.0)
    tiers = {facts.tier: facts for facts in result.tiers}
    busy = why_typical(software=False, busy=True)
    assert tiers["cpu"].speeds == typical_speeds("cpu", software=False, why=busy)
    assert tiers["webgpu"].speeds == typical_speeds("webgpu", software=True, why=busy)
    decision = decision_for(result.tiers, ModelNeed())
    assert decision.chosen in ("wasm", "cpu")
    assert "too busy to be measured" in decision.reason
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    quiet = await survey(Switches(), budget_s=30.0)
    monkeypatch.setattr("os.getloadavg", lambda: (1000.0, 0.0, 0.0))
    again = await survey(Switches(), budget_s=30.0)
    assert again.facts(BackendType.CPU).speeds == quiet.facts(BackendType.CPU).speeds
    assert quiet.facts(BackendType.CPU).speeds.source == "predicted"


def test_typical_speeds_prefer_a_real_gpu_and_never_an_imitated_one() -> None:
    def took(tier: Tier, *, software: bool = False) -> float:
        return typical_speeds(tier, software=software, why="").pass_seconds("product", 2e8, 36)

    assert took("webgpu") < took("wasm") < took("webgpu", software=True)
    assert took("cpu") < took("wasm")
    for kind in KINDS:
        near = typical_speeds("cpu", software=False, why="").seconds(kind, 3e5)
        assert near == pytest.approx(2e-5 + 3e5 * (4e-11 if kind == "product" else 1e-9), rel=0.3)


async def test_backends_are_held_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[str] = []

    async def opened(tier: str, *, remember: bool = True) -> Backend:
        if tier != "cpu":
            raise TierUnavailableError(tier, "planted")
        backend = CountingBackend()
        backend.close = lambda: closed.append("cpu")
        return backend

    monkeypatch.setattr("bascule.choosing.survey.open_named", opened)
    held = await survey(Switches(), budget_s=0.1, hold=True)
    assert (list(held.backends), closed) == (["cpu"], [])
    held.close()
    assert closed == ["cpu"]
    await survey(Switches(), budget_s=0.1, fresh=True)
    assert closed == ["cpu", "cpu"]


async def test_a_disabled_tier_is_not_even_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_JAX", "1")
    monkeypatch.setenv("BASCULE_MEMORY_MB", "7")
    result = await this_machine(read_switches(), budget_s=0.2)
    tiers = {facts.tier: facts for facts in result.tiers}
    assert "BASCULE_DISABLE_JAX" in tiers["webgpu"].refused
    assert tiers["cpu"].total_nbytes == 7 << 20
    assert await this_machine(read_switches()) is result
    monkeypatch.delenv("BASCULE_DISABLE_JAX")
    assert await this_machine(read_switches(), budget_s=0.2) is not result
