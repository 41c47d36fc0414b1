"""What is remembered of a machine's tiers: when it serves, what corrects it, what ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bascule
from bascule.backend.base import Backend, Tier
from bascule.backend.cpu import ReferenceBackend
from bascule.base.entries import MemoryRemembered
from bascule.base.remembered import open_remembered
from bascule.choosing import speed_records
from bascule.choosing.auto import ModelNeed, decision_for, need_of, open_best
from bascule.choosing.speed_records import APART_S, SpeedRecord, SpeedWatch, speed_key, speed_record
from bascule.choosing.speeds import LARGE_WORK, Sample, Speeds
from bascule.choosing.survey import survey
from bascule.choosing.switches import Switches
from bascule.choosing.tier_records import REFUSAL_S, TierFacts, TierRecords
from bascule.choosing.work import work_of_program
from bascule.errors import GpuError, TierUnavailableError
from bascule.machine.machine_key import machine_key
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from tests.goldens import TINY_BERT, cosines, golden

SPEEDS = Speeds({"product": (Sample(10**3, 1e-5, 1e-5), Sample(10**9, 1.0, 1.0))})


class Named(ReferenceBackend):
    """A backend of any tier, on a device of any name."""

    def __init__(self, tier: Tier, device: str, closed: list[str]) -> None:
        super().__init__()
        self.tier = tier
        self.device_name = device
        self._closed = closed

    def close(self) -> None:
        self._closed.append(self.tier)


class Machine:
    """Tiers that are opened by their planted openers, and what was opened and closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *tiers: Tier) -> None:
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.devices: dict[Tier, str] = {tier: f"planted {tier}" for tier in tiers}
        self.errors: dict[Tier, Exception] = {}
        for place in ("survey", "auto"):
            monkeypatch.setattr(f"bascule.choosing.{place}.open_named", self._open)
        monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))

    async def _open(self, tier: Tier, *, remember: bool = True) -> ReferenceBackend:
        if tier not in self.devices:
            raise TierUnavailableError(tier, "absent")
        self.opened.append(tier)
        if tier in self.errors:
            raise self.errors[tier]
        return Named(tier, self.devices[tier], self.closed)

    async def favours(self, tier: Tier) -> None:
        """Make the remembered speed of one tier far better than any other's."""
        remembered = await open_remembered()
        for facts in (await survey(Switches(), budget_s=0.5)).tiers:
            if facts.device_name:
                unit_s = 1e-15 if facts.tier == tier else 1e-9
                row = tuple(Sample(w, 2e-6 + w * unit_s, 1e-6 + w * unit_s) for w in (1, 10**12))
                record = SpeedRecord(Speeds({"product": row, "pass": row, "blocks": row}))
                await remembered.put(speed_key(facts.tier, facts.identity), record.as_json())
        self.opened.clear()
        self.closed.clear()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, "webgpu", "wasm", "cpu")


async def test_auto_opens_every_tier_once_and_then_the_chosen_one_alone(machine: Machine) -> None:
    first = await open_best(Switches(), ModelNeed())
    assert machine.opened == ["webgpu", "wasm", "cpu"]
    assert sorted([*machine.closed, first.backend.tier]) == ["cpu", "wasm", "webgpu"]
    await machine.favours("wasm")
    for _ in range(2):
        assert (await open_best(Switches(), ModelNeed())).backend.tier == "wasm"
    assert machine.opened == ["wasm", "wasm"]
    assert machine.closed == []
    await open_best(Switches(), ModelNeed(), remember=False)
    assert machine.opened[2:] == ["webgpu", "wasm", "cpu"]


@pytest.mark.parametrize(
    "error", [TierUnavailableError("wasm", "planted"), GpuError("x", "planted")]
)
async def test_a_remembered_tier_that_no_longer_opens_gives_way(
    machine: Machine, error: Exception
) -> None:
    await machine.favours("wasm")
    machine.errors["wasm"] = error
    opened = await open_best(Switches(), ModelNeed())
    assert opened.backend.tier != "wasm"
    assert "wasm refused (" in opened.reason
    assert "planted" in opened.reason
    assert machine.opened == ["wasm", opened.backend.tier]
    del machine.errors["wasm"]
    assert (await open_best(Switches(), ModelNeed())).backend.tier == "wasm"  # it is back


async def test_a_page_opens_the_cpu_tier_only_where_wasm_does_not_work(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.choosing.survey.IN_PAGE", True)
    machine.errors["webgpu"] = TierUnavailableError("webgpu", "no adapter was found")
    opened = await open_best(Switches(), ModelNeed())
    assert opened.backend.tier == "wasm"
    assert "cpu refused (wasm works" in opened.reason
    assert machine.opened == ["webgpu", "wasm"]
    machine.opened.clear()
    machine.errors["wasm"] = TierUnavailableError("wasm", "planted")
    opened = await open_best(Switches(), ModelNeed())
    assert opened.backend.tier == "cpu"
    assert machine.opened == ["wasm", "cpu"]


@pytest.mark.parametrize("rival", ["a GPU", "a software GPU", "none"])
async def test_a_page_measures_wasm_only_where_another_tier_may_be_faster(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, rival: str
) -> None:
    monkeypatch.setattr("bascule.choosing.survey.IN_PAGE", True)
    if rival == "none":
        machine.errors["webgpu"] = TierUnavailableError("webgpu", "no adapter was found")
    if rival == "a software GPU":

        def facts_of(backend: Backend) -> TierFacts:
            return TierFacts(backend.tier, software=backend.tier == "webgpu", identity="planted")

        monkeypatch.setattr("bascule.choosing.survey._facts", facts_of)
    result = await survey(Switches(), budget_s=0.5)
    wasm = next(facts for facts in result.tiers if facts.tier == "wasm")
    typical = "typical elsewhere (no other tier here could be faster)"
    assert wasm.speeds.source == ("predicted" if rival == "a GPU" else typical)
    remembered = await speed_record("wasm", wasm.identity, await open_remembered())
    assert (remembered is not None) == (rival == "a GPU")  # what is typical is no record
    measured_anyway = await survey(Switches(), budget_s=0.5, fresh=True)
    assert next(f for f in measured_anyway.tiers if f.tier == "wasm").speeds.source == "predicted"


async def test_another_device_than_the_remembered_one_is_surveyed_next_time(
    machine: Machine,
) -> None:
    await machine.favours("wasm")
    machine.devices["wasm"] = "another"
    await open_best(Switches(), ModelNeed())
    machine.opened.clear()
    result = await survey(Switches(), budget_s=0.5)
    assert machine.opened == ["wasm"]
    assert next(t for t in result.tiers if t.tier == "wasm").device_name == "another"


async def test_a_refusal_is_remembered_for_a_day(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.errors["webgpu"] = TierUnavailableError("webgpu", "no adapter was found")
    now = 1e9
    monkeypatch.setattr(TierRecords.open.__func__, "__kwdefaults__", {"clock": lambda: now})
    for _ in range(2):
        result = await survey(Switches(), budget_s=0.5)
        assert result.tiers[0].refused == "no adapter was found"
    assert machine.opened.count("webgpu") == 1
    now += REFUSAL_S
    await survey(Switches(), budget_s=0.5)
    assert machine.opened.count("webgpu") == 2


async def test_an_error_of_a_moment_is_no_remembered_refusal(machine: Machine) -> None:
    machine.errors["webgpu"] = GpuError("alloc", "no memory left")
    await survey(Switches(), budget_s=0.5)
    await survey(Switches(), budget_s=0.5)
    assert machine.opened.count("webgpu") == 2


async def test_a_changed_machine_is_surveyed_anew(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await machine.favours("cpu")
    monkeypatch.setenv("VK_DRIVER_FILES", "/another/driver.json")
    await open_best(Switches(), ModelNeed())
    assert machine.opened == ["webgpu", "wasm", "cpu"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        {"wasm": []},
        {"wasm": {"refused": "x", "at": 2**70}},
        {"wasm": {"refused": "x"}},
        {"wasm": {"refused": "", "device": 3}},
        {
            "wasm": {
                "refused": "",
                "device": "d",
                "software": False,
                "identity": "i",
                "largest_nbytes": 2**63,
            }
        },
    ],
)
async def test_damaged_records_count_as_none(machine: Machine, rows: Any) -> None:
    await machine.favours("cpu")
    await (await open_remembered()).put(f"tiers {machine_key()}", {"tiers": rows})
    await open_best(Switches(), ModelNeed())
    assert "wasm" in machine.opened


SCARCE = """
import asyncio, json, resource, sys, bascule
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
async def main():
    async with await bascule.load(sys.argv[1]) as model:
        found = await model.embed(json.loads(sys.argv[2]))
        print(json.dumps([model.tier, model.tier_reason, found.tolist()]))
asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS needs Linux")
def test_auto_gives_way_where_wasm_has_no_address_space(tmp_path: Path) -> None:
    expected = golden("tiny-bert")
    result = subprocess.run(
        [sys.executable, "-c", SCARCE, str(TINY_BERT), json.dumps(list(expected.texts))],
        env={**os.environ, "BASCULE_DISABLE_WEBGPU": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    tier, reason, embeddings = json.loads(result.stdout)
    assert tier == "cpu"
    assert "wasm refused (wasmtime cannot load its kernels" in reason
    assert (cosines(embeddings, expected.embeddings) >= 0.99999).all()


def test_the_machine_s_key_notices_drivers_and_what_steers_them(tmp_path: Path) -> None:
    def key(**environment: str) -> str | None:
        return machine_key(environment, tmp_path)

    keys = {key()}
    assert keys == {key(HOME="/elsewhere")}
    icd = tmp_path / "usr/share/vulkan/icd.d/lvp.json"
    icd.parent.mkdir(parents=True)
    icd.write_text("{}")
    keys.add(key())
    os.utime(icd, (1, 1))
    keys.add(key())
    icd.write_text("{ }")
    os.utime(icd, (1, 1))
    keys.add(key())
    vendor = tmp_path / "sys/class/drm/card0/device/vendor"
    vendor.parent.mkdir(parents=True)
    vendor.write_text("0x10de")
    keys.add(key())
    vendor.write_text("0x1002")
    keys.add(key())
    keys.add(key(VK_DRIVER_FILES="/x"))
    keys.add(key(WGPU_BACKEND_TYPE="OpenGL"))
    assert len(keys) == 8


def encoder(rows: int) -> Program:
    graph = Graph(f"encoder {rows}")
    x = graph.input("x", (rows, 100))
    graph.output(graph.call("linear", x, graph.parameter("w", (100, 100)), activation="none"))
    return freeze(graph)


SMALL, LARGE = encoder(100), encoder(200_000)


class Watched:
    """A watch whose clock stands where a test puts it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.busy = False
        self.remembered = MemoryRemembered()
        self.watch = SpeedWatch(
            "cpu", "me", "product", self.remembered, lambda: self.now, lambda: self.busy
        )

    async def record(self) -> SpeedRecord:
        result = await speed_record("cpu", "me", self.remembered)
        assert result is not None
        return result

    async def ran(self, ratio: float, program: Program = SMALL, times: int = 1) -> None:
        record = await self.record()
        work, calls = work_of_program(program)
        expected_s = record.speeds.pass_seconds("product", work, calls)
        for _ in range(times):
            await self.watch.note("cpu", [(program, 1.0)], ratio * expected_s)
            self.now += APART_S


@pytest.fixture
async def watched() -> Watched:
    result = Watched()
    await result.remembered.put(speed_key("cpu", "me"), SpeedRecord(SPEEDS).as_json())
    return result


@pytest.mark.parametrize("ratio", [30.0, 0.03])
async def test_three_contradictions_measure_again_and_three_more_correct(
    watched: Watched, ratio: float
) -> None:
    await watched.ran(ratio, times=2)
    assert not (await watched.record()).again
    await watched.ran(ratio)
    assert (await watched.record()).again
    backend = ReferenceBackend()
    measured = await speed_records.speeds_of(backend, "me", watched.remembered, 600.0)
    record = await watched.record()
    assert (record.again, record.checked) == (False, True)
    assert record.speeds == measured != SPEEDS
    await watched.ran(ratio, times=3)
    after = await watched.record()
    assert not after.again
    assert after.speeds.factors == {"product small": pytest.approx(ratio)}
    # From then on the prediction is what runs show, and they contradict it no more.
    await watched.ran(1.0, times=3)
    assert (await watched.record()).speeds.factors == after.speeds.factors


async def test_what_does_not_contradict(watched: Watched) -> None:
    await watched.ran(2.9, times=9)
    await watched.ran(0.4, times=9)
    for _ in range(5):  # two, and one that agrees
        await watched.ran(9.0, times=2)
        await watched.ran(1.0)
    for _ in range(5):  # once too slow, once too fast
        await watched.ran(9.0)
        await watched.ran(0.1)
    watched.busy = True
    await watched.ran(9.0, times=9)
    watched.busy = False
    for _ in range(9):  # all in one moment
        await watched.ran(9.0)
        watched.now -= APART_S
    await watched.watch.note("wasm", [(SMALL, 1.0)], 1e9)
    await watched.watch.note("cpu", [(SMALL, 1.0), (LARGE, 1.0)], 1e9)
    assert not (await watched.record()).again
    assert await watched.record() != SpeedRecord(SPEEDS)  # what is counted is remembered


async def test_small_and_large_passes_are_held_apart(watched: Watched) -> None:
    assert work_of_program(SMALL)[0] < LARGE_WORK <= work_of_program(LARGE)[0]
    for _ in range(2):
        await watched.ran(9.0, SMALL)
        await watched.ran(9.0, LARGE)
    assert not (await watched.record()).again
    await watched.ran(1.0, SMALL)
    await watched.ran(9.0, LARGE)
    assert (await watched.record()).again


def test_a_batch_counts_as_much_as_a_text_alone() -> None:
    need = need_of("encoder", [SMALL, LARGE])
    assert (need.work, need.large_work, need.calls) == (1e6, 2e9, 1)
    slow = TierFacts("wasm", speeds=_line(1e-5, 1e-10))
    # Ten times as slow for one text, a hundred times as fast for many.
    strong = TierFacts("webgpu", speeds=_line(1e-3, 1e-12))
    assert decision_for((strong, slow), need).chosen == "webgpu"
    alone = need_of("encoder", [SMALL])
    assert decision_for((strong, slow), alone).chosen == "wasm"


def _line(once_s: float, unit_s: float) -> Speeds:
    seconds = {10**power: once_s + 10**power * unit_s for power in range(11)}
    return Speeds({"product": tuple(Sample(w, s, s) for w, s in seconds.items())})


async def test_a_model_tells_its_watch_of_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch, "cpu")
    messages: list[tuple[str, float, float]] = []

    async def note(self: SpeedWatch, tier: Tier, passes: Any, seconds: float) -> None:
        messages.append((tier, sum(share * work_of_program(p)[0] for p, share in passes), seconds))

    monkeypatch.setattr(SpeedWatch, "note", note)
    async with await bascule.load(TINY_BERT, prove=False) as model:
        await model.embed(["w4 w5"] * 8)  # prepares a bucket
        prepared = len(messages)
        await model.embed(["w4 w5"] * 8)
        await model.embed(["w4 w5"] * 7)
    assert (prepared, len(messages)) == (0, 2)
    (tier, work, seconds), (_, less, _) = messages
    assert (tier, less) == ("cpu", pytest.approx(work * 7 / 8))
    assert seconds > 0
    async with await bascule.load(TINY_BERT, tier="cpu", prove=False) as model:
        await model.embed("w4")
        await model.embed("w4")
    assert len(messages) == 2  # who asks for a tier is not predicted
