"""What a FallbackManager was asked for, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from bascule.backend.base import TIERS
from bascule.base.arguments import did_you_mean
from bascule.choosing.openers import OpenDevice
from bascule.compat.error_policy import Classifier, kind_of
from bascule.compat.fallback.operations import ModelType, model_type_named
from bascule.errors import InputError
from bascule.machine.capabilities import Capabilities

_SIZES = ("memory_budget_nbytes", "binding_nbytes", "dispatch_work", "weights_nbytes")
CONFIG = ("tier", "device", "capabilities", "classify", *_SIZES)


@dataclass(frozen=True, slots=True)
class Settings:
    """`browser_info` is empty where none was given; a size of None or inf was not given either."""

    browser_info: Mapping[str, Any]
    model_type: ModelType
    layer_processing: bool
    memory_threshold: float
    tier: str = "auto"
    device: OpenDevice | None = None
    capabilities: Capabilities | None = None
    classify: Classifier | None = None
    memory_budget_nbytes: int | None = None
    binding_nbytes: float = inf
    dispatch_work: float = inf
    weights_nbytes: float = inf


def read_settings(
    browser_info: Any,
    model_type: Any,
    config: Any,
    *,
    layer_processing: bool = True,
    memory_threshold: Any = 0.8,
) -> Settings:
    """Check the arguments; InputError that says which is wrong.

    `config` may have "tier" (see `bascule.load`), "device" (an open one, which stays so),
    "capabilities" (in place of what probing would find), "memory_budget_nbytes", "binding_nbytes"
    (of one tensor), "dispatch_work" (multiply-adds of one dispatch), "weights_nbytes" (of an
    operation's weights: past it they become blocks of 8 bits, or of 4) and "classify" (see
    `RecoveryManager`).
    """
    given = mapping_of(config, "config")
    unknown = sorted(set(map(str, given)) - set(CONFIG))
    if unknown:
        raise InputError("config", f"settings of {', '.join(CONFIG)}", ", ".join(unknown)[:80])
    results = {name: value for name, value in given.items() if value is not None}
    for name in _SIZES:
        size = results.get(name, 1)
        if isinstance(size, bool) or not isinstance(size, int | float) or not size >= 1:
            raise InputError(f"config {name!r}", "a number from 1 on", repr(size)[:80])
    tier_named(results.get("tier", "auto"), "config 'tier'")
    _need(results.get("device"), OpenDevice, "config 'device'", "what bascule.open_device gives")
    _need(
        results.get("capabilities"), Capabilities, "config 'capabilities'", "a Capabilities record"
    )
    if not callable(results.get("classify", kind_of)):
        raise InputError("config 'classify'", "a callable", repr(results["classify"])[:80])
    return Settings(
        mapping_of(browser_info, "browser_info"),
        model_type_named(model_type, "model_type"),
        bool(layer_processing),
        _threshold(memory_threshold),
        **results,
    )


def mapping_of(given: Any, where: str) -> Mapping[str, Any]:
    """A mapping, empty for None; InputError for anything else."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(where, "a dictionary", type(given).__name__)
    return given


def tier_named(tier: Any, where: str) -> str:
    """The name of a tier, or "auto"; InputError for anything else."""
    if tier == "auto" or tier in TIERS:
        return tier
    hint = did_you_mean(tier, ("auto", *TIERS))
    raise InputError(where, f'"auto" or one of {", ".join(TIERS)}', repr(tier)[:80], hint=hint)


def _need(value: Any, type: type, where: str, expected: str) -> None:
    if value is not None and not isinstance(value, type):
        raise InputError(where, expected, repr(value)[:80])


def _threshold(given: Any) -> float:
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not (number and isfinite(given) and 0 < given <= 1):
        raise InputError("memory_threshold", "a number above 0, up to 1", repr(given)[:80])
    return float(given)
