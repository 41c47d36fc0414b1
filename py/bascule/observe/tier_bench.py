"""Measure each working tier: its memory, its arithmetic, and a sentence encoder."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import bascule
from bascule.backend.tiers import TIERS, BackendType, Tier, tier_info
from bascule.base.page_settings import IN_PAGE
from bascule.base.progress import Progress, ProgressCallback
from bascule.choosing.switches import read_switches
from bascule.device.device import Device, open_device
from bascule.errors import BasculeError, InputError
from bascule.observe.roofline import QUICK_SIZES, measure_roofline, usual_sizes
from bascule.observe.tier_report import Fact, TierFigures, TierReport, measured, reported, unknown
from bascule.tasks.embedder import EmbeddingModel

MODEL = "all-MiniLM-L6-v2"
# The tier whose answers the others are compared with. It is measured first.
_REFERENCE: Tier = "cpu"
_SENTENCE = "A bascule bridge lifts its leaf by a counterweight."
_BATCH, _QUICK_BATCH = 16, 4
_WARM_RUNS, _QUICK_WARM_RUNS = 5, 2
_STAGES = ("opening", "memory and arithmetic", "loading the model", "embedding")
_PARTS = 100  # of a stage, in the counts of progress


async def measure_tiers(
    model: str = MODEL,
    *,
    quick: bool = False,
    tiers: Sequence[str] = TIERS,
    environment: Mapping[str, Fact] | None = None,
    progress: ProgressCallback | None = None,
    finished: Callable[[TierFigures], None] | None = None,
) -> TierReport:
    """Open each tier, time a copy, a matrix product and embeddings, and compare the answers.

    `model` is a sentence encoder. `quick` uses small sizes and few runs, for a first look.
    `environment` is added to the facts about Python. `progress` counts hundredths of stages,
    `finished` gets the figures of each tier when it is done. A tier that does not work has a
    reason, as does a figure that could not be measured. InputError for an unknown tier.
    """
    if wrong := [tier for tier in tiers if tier not in TIERS]:
        raise InputError("tiers", f"tiers of {', '.join(TIERS)}", repr(wrong[0]))
    ordered = sorted(tiers, key=TIERS.index)
    bench = _Bench(model, quick, progress or (lambda _: None), len(ordered))
    results: dict[str, TierFigures] = {}
    for tier in sorted(ordered, key=_REFERENCE.__ne__):
        results[tier] = await bench.measure(tier)
        if finished is not None:
            finished(results[tier])
    facts = {**_python_facts(), **(environment or {})}
    return TierReport(quick, model, facts, tuple(results[tier] for tier in ordered))


class _Bench:
    """Measures one tier after the other."""

    def __init__(self, model: str, quick: bool, report: ProgressCallback, n_tiers: int) -> None:
        self._model = model
        self._quick = quick
        self._report = report
        self._n_tiers = n_tiers
        self._n_done = 0
        self._reference: memoryview[float] | None = None
        self._no_reference = f"the {_REFERENCE} tier was not measured"

    async def measure(self, tier: str) -> TierFigures:
        """Return the figures of a tier, or why it does not work."""
        info = tier_info(_tier(tier))
        try:
            return await self._measure(info.name, info.label)
        except BasculeError as error:
            if tier == _REFERENCE:
                self._no_reference = f"the {tier} tier does not work: {error.what}"
            return TierFigures(tier, info.label, error.what, {}, {})
        finally:
            self._notify(tier, len(_STAGES) - 1, 1.0)
            self._n_done += 1

    async def _measure(self, tier: Tier, label: str) -> TierFigures:
        if refused := read_switches().refuses(BackendType(tier)):
            return TierFigures(tier, label, refused, {}, {})
        self._notify(tier, 0)
        began = perf_counter()
        async with await open_device(tier) as device:
            figures = {"open": _ms_since(began)}
            facts = _device_facts(device)
            self._notify(tier, 1)
            figures |= await self._roofline(device, facts)
            figures |= await self._embeddings(device)
        return TierFigures(tier, label, "", facts, figures)

    async def _roofline(self, device: Device, facts: dict[str, Fact]) -> dict[str, Fact]:
        sizes = QUICK_SIZES if self._quick else usual_sizes(device.backend)
        facts["copied_nbytes"] = Fact(2 * 4 * sizes.copied, "set here")
        facts["product_side"] = Fact(sizes.side, "set here")
        try:
            result = await measure_roofline(device.backend, "linear", sizes)
        except BasculeError as error:
            return dict.fromkeys(("copy", "matmul"), unknown(error.what))
        facts["timed_by"] = Fact(result.timed_by, "measured")
        return {
            "copy": measured(result.bytes_per_s / 1e9),
            "matmul": measured(result.flops_per_s / 1e9),
        }

    async def _embeddings(self, device: Device) -> dict[str, Fact]:
        names = ("load", "one_cold", "one_warm", "batch_cold", "batch_warm", "deviation")
        try:
            return await self._embedded(device)
        except BasculeError as error:
            if device.tier == _REFERENCE:
                self._no_reference = f"the {_REFERENCE} tier gave no embeddings: {error.what}"
            return dict.fromkeys(names, unknown(error.what))

    async def _embedded(self, device: Device) -> dict[str, Fact]:
        began = perf_counter()

        def on_progress(progress: Progress) -> None:
            if progress.stage == "weights":
                self._notify(device.tier, 2, progress.fraction)

        self._notify(device.tier, 2)
        model = await device.load(self._model, progress=on_progress, fallbacks=False)
        async with model:
            if not isinstance(model, EmbeddingModel):
                raise InputError("model", "a sentence encoder", model.name)
            load = _ms_since(began)
            self._notify(device.tier, 3)
            one = await _timed(model, [_SENTENCE], self._n_warm)
            self._notify(device.tier, 3, 0.5)
            texts = [f"{_SENTENCE} Its number is {i}." for i in range(self._n_batch)]
            batch = await _timed(model, texts, self._n_warm)
        return {
            "load": load,
            "one_cold": one.cold,
            "one_warm": one.warm,
            "batch_cold": batch.cold,
            "batch_warm": batch.warm,
            "deviation": self._deviation(device.tier, batch.rows),
        }

    @property
    def _n_warm(self) -> int:
        return _QUICK_WARM_RUNS if self._quick else _WARM_RUNS

    @property
    def _n_batch(self) -> int:
        return _QUICK_BATCH if self._quick else _BATCH

    def _deviation(self, tier: Tier, rows: memoryview[float]) -> Fact:
        if tier == _REFERENCE:
            self._reference = rows
        if self._reference is None:
            return unknown(self._no_reference)
        return measured(max(abs(a - b) for a, b in zip(rows, self._reference, strict=True)))

    def _notify(self, tier: str, stage: int, fraction: float = 0.0) -> None:
        """Report how much of a tier's stage is done."""
        per_tier = len(_STAGES) * _PARTS
        done = self._n_done * per_tier + int((stage + fraction) * _PARTS)
        self._report(Progress(f"{tier}: {_STAGES[stage]}", done, self._n_tiers * per_tier, "parts"))


@dataclass(frozen=True, slots=True)
class _Timed:
    """A first run, the shortest of the following ones, and the rows."""

    cold: Fact
    warm: Fact
    rows: memoryview[float]


async def _timed(model: EmbeddingModel, texts: list[str], n_warm: int) -> _Timed:
    cold, rows = await _timed_run(model, texts)
    warm = [await _timed_run(model, texts) for _ in range(n_warm)]
    return _Timed(measured(cold), measured(min(ms for ms, _ in warm)), rows)


async def _timed_run(model: EmbeddingModel, texts: list[str]) -> tuple[float, memoryview[float]]:
    """Return the milliseconds of a run, and its rows."""
    began = perf_counter()
    result = await model.embed_rows(texts)
    return 1e3 * (perf_counter() - began), result.rows


def _ms_since(began: float) -> Fact:
    return measured(1e3 * (perf_counter() - began))


def _tier(name: str) -> Tier:
    return BackendType(name).tier


def _device_facts(device: Device) -> dict[str, Fact]:
    adapter = device.adapter
    if adapter is None:
        return {"device": reported(device.device_name, "the tier")}
    by = "GPUAdapterInfo" if IN_PAGE else "the driver"
    # A browser that names no adapter does not say either whether the CPU emulates it.
    nameless = unknown(f"{by} names no adapter")
    named = adapter.vendor or adapter.architecture or adapter.device or adapter.description
    return {
        "device": reported(adapter.name, by) if named else nameless,
        "software": reported(adapter.software, by) if named or adapter.software else nameless,
        "features": reported(", ".join(sorted(adapter.features)) or "none", "the adapter"),
    }


def _python_facts() -> dict[str, Fact]:
    return {
        "bascule": reported(bascule.__version__, "the package"),
        "python": reported(platform.python_version(), "Python"),
    }
