"""HardwareCompatibilityReporter: what runs on this machine, what does not, and what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from dataclasses import asdict, replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import bascule
from bascule.backend.tiers import tier_info
from bascule.base.arguments import did_you_mean
from bascule.base.arrays import need_numpy, np
from bascule.base.numbers import three_digits
from bascule.base.page_settings import IN_PAGE
from bascule.base.waiting import start, sync
from bascule.choosing.auto import need_of
from bascule.choosing.speeds import Kind
from bascule.choosing.survey import survey
from bascule.choosing.switches import read_switches
from bascule.choosing.tier_records import TierFacts
from bascule.compat.model_family import read_family
from bascule.device.device import open_device
from bascule.device.loading import read_programs
from bascule.errors import BasculeError, InputError
from bascule.machine.hardware import Hardware, detect_hardware
from bascule.machine.host import LITTLE_NBYTES, free_nbytes
from bascule.models.classes import examples_of
from bascule.observe.findings import SEVERITIES, Cell, Finding, Level, Severity
from bascule.observe.report_text import as_html, as_markdown

T = TypeVar("T")

FORMATS = ("markdown", "json", "html")
# The purpose of each package, and the severity if it is missing.
_PACKAGES: dict[str, tuple[Severity, str]] = {
    "numpy": ("critical", "arrays and the cpu tier need it"),
    "wgpu": ("error", "the webgpu tiers need it outside a page"),
    "wasmtime": ("warning", "the wasm tier needs it outside a page"),
    "tokenizers": ("warning", "texts need it outside a page"),
}
# A pass of a small model of each family: its kind of work, and its multiply-adds.
_SMALL_MODELS: dict[str, tuple[Kind, float]] = {
    "embedding": ("product", 2e8),
    "text_generation": ("blocks", 1.3e8),
    "vision": ("product", 1.8e10),  # a base-sized encoder of 224 x 224 pictures
    "audio": ("product", 5e9),
    "multimodal": ("product", 2.4e10),
}
# Families with another op mix than the samples: convolutions, attention over a spectrum.
_BY_PRODUCTS_ALONE = ("vision", "audio", "multimodal")
_HIGH_S, _MEDIUM_S = 0.05, 0.5


class HardwareCompatibilityReporter:
    """Collects findings about packages, hardware, memory and models, and reports them.

    Methods that open tiers or read a model run to completion in synchronous code, and are awaited
    if an event loop is running, as in a page. Tiers are opened, and measured if this machine is
    new, when a method first needs them.
    """

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.hardware: tuple[Hardware, ...] = ()
        self._tiers: tuple[TierFacts, ...] | None = None
        self._tested: dict[str, str] = {}  # what a tier's test found wrong; empty where it passed
        self._begun: list[asyncio.Task[Any]] = []  # by methods that are to be awaited

    def check_components(self) -> list[Finding]:
        """Look for the packages that tiers need, without importing them."""
        results = [
            Finding(
                severity,
                name,
                "missing_component",
                f"The Python package {name} is not installed: {use}.",
                (f"Install it: pip install {name}.",),
            )
            for name, (severity, use) in _PACKAGES.items()
            if find_spec(name) is None and not (IN_PAGE and use.endswith("outside a page"))
        ]
        return self._add(results)

    def collect_hardware_detection_errors(self) -> Any:
        """Look for accelerators, and open each tier; return a list of Findings. Awaitable."""
        return self._begin(self._detect())

    async def _detect(self) -> list[Finding]:
        tiers = await self._surveyed()
        self.hardware = tuple(_with_adapter(each, tiers) for each in detect_hardware())
        results = [_refused(each) for each in tiers if each.refused]
        results += [_software(each) for each in tiers if each.software and not each.refused]
        if all(each.refused for each in tiers):
            why = "No tier works on this machine."
            results.append(Finding("critical", "tiers", "no_tier", why, ("pip install numpy",)))
        return self._add(results)

    def collect_resource_pool_errors(self) -> list[Finding]:
        """Compare the free memory with what a model needs."""
        nbytes = free_nbytes()
        if nbytes is None:
            text = "The system does not report how much memory is free."
            return self._add([Finding("info", "memory", "unknown_memory", text)])
        if nbytes >= LITTLE_NBYTES:
            return []
        advice = (
            "Close other applications and tabs.",
            "Use a smaller model or smaller batches.",
            "Load with quantize=8 or quantize=4.",
        )
        text = f"{nbytes >> 20:,} MiB of memory are free."
        return self._add([Finding("warning", "memory", "memory_pressure", text, advice)])

    def collect_model_integration_errors(self, model_name: str) -> Any:
        """Compare what a model needs, by its own files, with each working tier.

        Returns a list of Findings, awaitable. InputError for an empty name.
        """
        if not model_name:
            raise InputError("model", "a model's name, folder or URL", "an empty name")
        return self._begin(self._integrate(model_name))

    async def _integrate(self, model_name: str) -> list[Finding]:
        model_class = await _class_of(model_name)
        try:
            programs = await read_programs(model_name)
        except BasculeError as error:
            advice = (error.hint,) if error.hint else ()
            what = f"{error.what.rstrip('.')}.{model_class}"
            return self._add([Finding("error", model_name, error.category, what, advice)])
        need = need_of(model_name, programs)
        results: list[Finding] = []
        able: list[str] = []
        for each in await self._surveyed():
            why = need.refusal(each)
            if each.better:
                continue
            if not why:
                able.append(each.tier)
            elif not each.refused:
                advice = ('Use tier="auto", or load with quantize=4.',)
                text = f"It does not run on {each.tier}: {why}."
                results.append(Finding("error", model_name, "incompatible", text, advice))
        needs = f"It needs {need.total_nbytes / (1 << 20):,.1f} MiB"
        if able:
            text = f"{needs} and runs on {', '.join(able)}.{model_class}"
            results.append(Finding("info", model_name, "compatible", text))
        else:
            advice = ("Load with quantize=4.", "Use a smaller model of its kind.")
            text = f"{needs}, and no tier here can run it."
            results.append(Finding("critical", model_name, "no_tier", text, advice))
        return self._add(results)

    def test_full_hardware_stack(self) -> Any:
        """Open and measure each tier again, and compare a matrix product with float64.

        Returns a list of Findings, awaitable. On a busy machine, and for software adapters, speeds
        are typical ones.
        """
        return self._begin(self._test())

    def generate_compatibility_matrix(self) -> Any:
        """Return a Cell by family of models and tier, awaitable.

        A cell is "measured" if that work was timed here and its tier has not failed a test, else
        "assumed".
        """
        return self._begin(self._matrix())

    async def _matrix(self) -> dict[str, dict[str, Cell]]:
        return self._rows(await self._surveyed())

    def _rows(self, tiers: tuple[TierFacts, ...]) -> dict[str, dict[str, Cell]]:
        rows: dict[str, dict[str, Cell]] = {}
        for family, (kind, work) in _SMALL_MODELS.items():
            if not examples_of(family):
                none = Cell("none", "assumed", "this version has no model of that family")
                rows[family] = {t.tier: none for t in tiers}
                continue
            cells = {t.tier: self._cell(t, tiers, kind, work) for t in tiers}
            if family in _BY_PRODUCTS_ALONE:
                cells = {tier: _by_products(cell) for tier, cell in cells.items()}
            rows[family] = cells
        return rows

    def generate_report(self, format: str = "markdown") -> str:
        """Return the findings so far, worst first, as "markdown", "json" or "html".

        InputError for another format, and while an awaitable method is running.
        """
        return render(self.as_json(), format)

    def as_json(self, *, matrix: bool = False) -> dict[str, Any]:
        """Return everything that is known, as plain values.

        `matrix` opens the tiers in synchronous code, unless an awaited method has done so.
        InputError while an awaitable method is running.
        """
        if not all(task.done() for task in self._begun):
            hint = "Where an event loop runs, await the reporter's methods before its report."
            raise InputError("the report", "findings", "a method that still runs", hint=hint)
        ordered = sorted(self.findings, key=lambda f: SEVERITIES.index(f.severity))
        results: dict[str, Any] = {
            "version": bascule.__version__,
            "counts": {s: sum(f.severity == s for f in ordered) for s in SEVERITIES},
            "findings": [asdict(finding) for finding in ordered],
            "hardware": [asdict(each) for each in self.hardware],
            "tiers": [
                {
                    "tier": t.tier,
                    "works": None if t.better else not t.refused,
                    "reason": t.refused or t.device_name,
                }
                for t in self._tiers or ()
            ],
            "tested": dict(self._tested),
        }
        if matrix:
            rows = self._rows(self._tiers or sync(self._surveyed()))
            results["matrix"] = {
                family: {tier: asdict(cell) for tier, cell in row.items()}
                for family, row in rows.items()
            }
        return results

    def save_to_file(self, text: str, path: str | PathLike[str]) -> Path:
        """Write a report to a file; return its path."""
        result = Path(path)
        result.write_text(text, "utf-8")
        return result

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T] | T:
        result = start(work)
        if isinstance(result, asyncio.Task):
            self._begun.append(result)
        return result

    def _add(self, findings: list[Finding]) -> list[Finding]:
        self.findings += [finding for finding in findings if finding not in self.findings]
        return findings

    async def _surveyed(self, *, fresh: bool = False) -> tuple[TierFacts, ...]:
        if self._tiers is None or fresh:
            self._tiers = tuple((await survey(read_switches(), fresh=fresh)).tiers)
        return self._tiers

    async def _test(self) -> list[Finding]:
        await need_numpy("test_full_hardware_stack", "Load numpy into this Pyodide first.")
        results: list[Finding] = []
        for each in await self._surveyed(fresh=True):
            if each.refused:
                continue
            try:
                wrong = await _wrong_product(each.tier)
            except BasculeError as error:
                wrong = error.what
            self._tested[each.tier] = wrong
            if wrong:
                advice = ("Update the graphics driver.", "Load models with another tier.")
                text = f"Its product of matrices failed: {wrong}."
                results.append(Finding("error", each.tier, "wrong_result", text, advice))
            else:
                text = "Its product of matrices agrees with numpy in float64."
                results.append(Finding("info", each.tier, "tested", text))
        return self._add(results)

    def _cell(
        self, facts: TierFacts, tiers: tuple[TierFacts, ...], kind: Kind, work: float
    ) -> Cell:
        wrong = facts.refused or self._tested.get(facts.tier, "")
        if facts.better:
            best = next(t for t in tiers if t.tier == facts.better)
            return Cell(self._cell(best, tiers, kind, work).level, "assumed", f"as {facts.better}")
        if wrong:
            return Cell("none", "measured", wrong)
        if tier_info(facts.tier).typical.blocks_s is None and kind == "blocks":
            return Cell("none", "assumed", "the tier does no such work")
        if not facts.speeds.samples.get(kind):
            return Cell("low", "assumed", "not timed here")
        seconds = facts.speeds.seconds(kind, work, again=True)
        level: Level = "high" if seconds <= _HIGH_S else "medium" if seconds <= _MEDIUM_S else "low"
        measured = not facts.speeds.source.startswith("typical")
        basis = "measured" if measured else "assumed"
        why = "" if measured else f", {facts.speeds.source}"
        return Cell(level, basis, f"{three_digits(1e3 * seconds)} ms a pass of a small model{why}")


async def _class_of(model_name: str) -> str:
    """Return a sentence on a model's class and size with the evidence; empty without any."""
    try:
        result = await read_family(model_name)
    except BasculeError:
        return ""
    if result.family is None:
        return ""
    words = " ".join(word for word in (result.size, result.family) if word)
    article = "an" if words[0] in "aeiou" else "a"
    return f" It is {article} {words} model, by its {result.family_source}."


def _by_products(cell: Cell) -> Cell:
    """Mark a level that follows from matrix products alone; why a tier does not work stays."""
    if cell.level == "none":
        return cell
    return Cell(cell.level, "assumed", f"by products alone; {cell.reason}")


def render(report: dict[str, Any], format: str) -> str:
    """Return a report's record as text; InputError for an unknown format."""
    if format == "json":
        return json.dumps(report, indent=2)
    if format == "markdown":
        return as_markdown(report)
    if format == "html":
        return as_html(report)
    hint = did_you_mean(format, FORMATS)
    raise InputError("generate_report, format", f"one of {', '.join(FORMATS)}", format, hint=hint)


async def _wrong_product(tier: str) -> str:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((48, 48)).astype(np.float32) for _ in range(2))
    async with await open_device(tier, remember=False) as device:
        result = await device.ops.matmul(await device.buffer(a), await device.buffer(b))
        error = float(np.abs(await result.numpy() - a.astype(np.float64) @ b).max())
    return "" if error <= 1e-4 else f"it is {error:.2g} off"


def _with_adapter(hardware: Hardware, tiers: tuple[TierFacts, ...]) -> Hardware:
    """Add a note if the only Vulkan device that WebGPU finds is the CPU."""
    imitated = next((t.device_name for t in tiers if t.software and not t.refused), "")
    if hardware.name != "vulkan" or not hardware.present or not imitated:
        return hardware
    return replace(hardware, source=f"{hardware.source}; in software: {imitated}")


def _refused(facts: TierFacts) -> Finding:
    if facts.better:
        text = f"It was not tried: {facts.refused}."
        return Finding("info", facts.tier, "not_tried", text)
    advice = ('Use tier="auto": it takes the best tier that works here.',)
    severity: Severity = "info" if facts.tier == "webnn" else "error"
    return Finding(severity, facts.tier, "unavailable", f"{facts.refused}.", advice)


def _software(facts: TierFacts) -> Finding:
    text = f"{facts.device_name} is emulated on the CPU: it is slow."
    advice = ("Install the driver of a GPU, or switch hardware acceleration on in the browser.",)
    return Finding("warning", facts.tier, "software_adapter", text, advice)
