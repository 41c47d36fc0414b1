"""The report of a run over all tiers: its records, ratios, and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

from bascule.backend.tiers import TIERS
from bascule.errors import InputError

FORMAT, VERSION = "bascule.tiers", 1
_SOURCES = "measured, reported by ..., set here, or unknown"
_WHERE = "a report of tiers"
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fact:
    """A value and its source: "measured", "reported by X", "set here" (a size that the run chose)
    or "unknown: why", with None as the value.
    """

    value: float | str | bool | None
    source: str

    @property
    def number(self) -> float | None:
        """The value, if it is a number."""
        return None if isinstance(self.value, str | bool) else self.value


def measured(value: float) -> Fact:
    """Return a measured figure."""
    return Fact(value, "measured")


def reported(value: float | str | bool, by: str) -> Fact:
    """Return a reported fact."""
    return Fact(value, f"reported by {by}")


def unknown(why: str) -> Fact:
    """Return an unknown fact, and why."""
    return Fact(None, f"unknown: {why}")


# What is measured of a tier, with its unit.
UNITS: Mapping[str, str] = {
    "open": "ms",
    "copy": "GB/s",
    "matmul": "GFLOP/s",
    "load": "ms",
    "one_cold": "ms",
    "one_warm": "ms",
    "batch_cold": "ms",
    "batch_warm": "ms",
    "deviation": "",
}
# The figures in which tiers are compared; higher rates and lower times are better.
COMPARED = ("copy", "matmul", "one_warm", "batch_warm")


@dataclass(frozen=True, slots=True)
class TierFigures:
    """One tier's results. `refused` says why it does not work, and is empty if it does.

    `facts` are its device's: name, software, timed_by, sizes. `figures` are in the units of
    `UNITS`; `deviation` is the largest absolute difference of an embedding's element from the cpu
    tier's.
    """

    tier: str
    label: str
    refused: str
    facts: Mapping[str, Fact]
    figures: Mapping[str, Fact]


@dataclass(frozen=True, slots=True)
class TierReport:
    """The tiers of a machine side by side, in the order of the table of tiers."""

    quick: bool
    model: str
    environment: Mapping[str, Fact]
    tiers: tuple[TierFigures, ...]

    @property
    def slowdowns(self) -> dict[str, dict[str, float]]:
        """Return for each compared figure and tier how many times slower than the fastest it is."""
        return {name: _slowdowns(name, self.tiers) for name in COMPARED}

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **asdict(self),
            "tiers": [asdict(each) for each in self.tiers],
            "units": dict(UNITS),
            "slowdowns": self.slowdowns,
        }

    @classmethod
    def from_json(cls, text: str) -> TierReport:
        """Parse a report; InputError for anything else, or an unknown version."""
        try:
            report = _record(json.loads(text), "the report")
        except ValueError:
            raise InputError(_WHERE, "JSON", repr(text[:80])) from None
        if (report.get("format"), report.get("version")) != (FORMAT, VERSION):
            result = f"{report.get('format')!r}, version {report.get('version')!r}"
            hint = "Use a report that this version of bench.html has written."
            raise InputError(_WHERE, f"{FORMAT!r}, version {VERSION}", result, hint=hint)
        tiers = report.get("tiers")
        if not isinstance(tiers, list):
            raise InputError(_WHERE, "a list of tiers", repr(tiers)[:80])
        return cls(
            _field(report, "quick", bool),
            _field(report, "model", str),
            _facts(report, "environment"),
            tuple(_tier(_record(each, "a tier")) for each in cast("list[Any]", tiers)),
        )


def _slowdowns(name: str, tiers: tuple[TierFigures, ...]) -> dict[str, float]:
    results = {each.tier: each.figures[name].number for each in tiers if name in each.figures}
    numbers = {tier: number for tier, number in results.items() if number}
    if not numbers:
        return {}
    if UNITS[name] == "ms":
        fastest = min(numbers.values())
        return {tier: number / fastest for tier, number in numbers.items()}
    highest = max(numbers.values())
    return {tier: highest / number for tier, number in numbers.items()}


def _tier(record: Mapping[str, Any]) -> TierFigures:
    tier = _field(record, "tier", str)
    if tier not in TIERS:
        raise InputError(_WHERE, f"a tier of {', '.join(TIERS)}", repr(tier))
    refused = _field(record, "refused", str)
    figures = _facts(record, "figures")
    if set(figures) != (set() if refused else set(UNITS)):
        raise InputError(_WHERE, f"the figures {', '.join(UNITS)} of {tier}", ", ".join(figures))
    for name, fact in figures.items():
        if isinstance(fact.value, str | bool):
            raise InputError(_WHERE, f"a number as {name} of {tier}", repr(fact.value))
    return TierFigures(
        tier, _field(record, "label", str), refused, _facts(record, "facts"), figures
    )


def facts_of(record: Mapping[str, Any]) -> dict[str, Fact]:
    """Parse facts by name; InputError for an invalid source."""
    return {name: _fact(name, _record(value, name)) for name, value in record.items()}


def _facts(record: Mapping[str, Any], name: str) -> dict[str, Fact]:
    return facts_of(_record(record.get(name), name))


def _fact(name: str, record: Mapping[str, Any]) -> Fact:
    value, source = record.get("value"), _field(record, "source", str)
    kinds = {"measured": True, "set here": True, "reported by ": True, "unknown: ": False}
    has_value = next((has for kind, has in kinds.items() if source.startswith(kind)), None)
    if has_value is None:
        raise InputError(_WHERE, f"a source ({_SOURCES}) of {name}", repr(source))
    if not isinstance(value, float | int | str | None) or (value is not None) != has_value:
        raise InputError(_WHERE, f"a value of {name} that fits {source!r}", repr(value)[:80])
    return Fact(value, source)


def _record(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(_WHERE, f"an object as {name}", repr(value)[:80])
    return cast("dict[str, Any]", value)


def _field(record: Mapping[str, Any], name: str, kind: type[_T]) -> _T:
    value = record.get(name)
    if type(value) is not kind:
        raise InputError(_WHERE, f"{kind.__name__} as {name}", repr(value)[:80])
    return value
