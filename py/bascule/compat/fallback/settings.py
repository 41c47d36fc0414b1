"""The arguments of a FallbackManager, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from bascule.backend.base import TIERS
from bascule.base.arguments import did_you_mean, is_number
from bascule.choosing.openers import OpenDevice
from bascule.compat.error_policy import Classifier, kind_of
from bascule.compat.fallback.operations import ModelType, model_type_named
from bascule.errors import InputError
from bascule.machine.capabilities import Capabilities

_SIZES = ("memory_budget_nbytes", "binding_nbytes", "dispatch_work", "weights_nbytes")
CONFIG = ("tier", "device", "capabilities", "classify", *_SIZES)


@dataclass(frozen=True, slots=True)
class Settings:
    """An empty `browser_info` and a size of None or inf mean that there is none."""

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
    """Check the arguments; InputError for one that is wrong.

    `config` may have "tier" (see `bascule.load`), "device" (an open one, which stays so),
    "capabilities" (in place of what probing would find), "memory_budget_nbytes", "binding_nbytes"
    (of one tensor), "dispatch_work" (multiply-adds of one dispatch), "weights_nbytes" (of an
    operation's weights: past it they become blocks of 8 bits, or of 4) and "classify" (see
    `RecoveryManager`).
    """
    values = mapping_of(config, "config")
    unknown = sorted(set(map(str, values)) - set(CONFIG))
    if unknown:
        raise InputError("config", f"settings of {', '.join(CONFIG)}", ", ".join(unknown)[:80])
    options = {name: value for name, value in values.items() if value is not None}
    for name in _SIZES:
        size = options.get(name, 1)
        if not is_number(size) or not size >= 1:
            raise InputError(f"config {name!r}", "a number of at least 1", repr(size)[:80])
    tier_named(options.get("tier", "auto"), "config 'tier'")
    _check_type(
        options.get("device"), OpenDevice, "config 'device'", "what bascule.open_device gives"
    )
    _check_type(
        options.get("capabilities"), Capabilities, "config 'capabilities'", "a Capabilities record"
    )
    if not callable(options.get("classify", kind_of)):
        raise InputError("config 'classify'", "a callable", repr(options["classify"])[:80])
    return Settings(
        mapping_of(browser_info, "browser_info"),
        model_type_named(model_type, "model_type"),
        bool(layer_processing),
        _threshold(memory_threshold),
        **options,
    )


def mapping_of(value: Any, where: str) -> Mapping[str, Any]:
    """A mapping, empty for None; InputError for anything else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(where, "a dictionary", type(value).__name__)
    return value


def tier_named(tier: Any, where: str) -> str:
    """The name of a tier, or "auto"; InputError for anything else."""
    if tier == "auto" or tier in TIERS:
        return tier
    hint = did_you_mean(tier, ("auto", *TIERS))
    raise InputError(where, f'"auto" or one of {", ".join(TIERS)}', repr(tier)[:80], hint=hint)


def _check_type(value: Any, type: type, where: str, expected: str) -> None:
    if value is not None and not isinstance(value, type):
        raise InputError(where, expected, repr(value)[:80])


def _threshold(value: Any) -> float:
    if not is_number(value) or not 0 < value <= 1:
        raise InputError("memory_threshold", "a number above 0, up to 1", repr(value)[:80])
    return float(value)
