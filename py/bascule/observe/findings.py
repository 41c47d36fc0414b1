"""Findings of a compatibility report: what is wrong, how severe it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# critical: nothing runs; error: this hardware or model does not, others do; warning: it runs worse
# than it could; info: worth knowing.
Severity = Literal["critical", "error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("critical", "error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding; `component` is a package, a tier, a kind of hardware or a model."""

    severity: Severity
    component: str
    error: str
    message: str
    recommendations: tuple[str, ...] = ()


# cell: how well a family runs on a tier, and why; measured here, or assumed.
Level = Literal["high", "medium", "low", "none"]


@dataclass(frozen=True, slots=True)
class Cell:
    """How well a family of models runs on a tier: `basis` is "measured" or "assumed"."""

    level: Level
    basis: Literal["measured", "assumed"]
    reason: str
