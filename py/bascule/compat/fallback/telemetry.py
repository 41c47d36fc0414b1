"""Counts of a FallbackManager, under the names of the fallback guide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Telemetry:
    """Counts of operations; times in milliseconds and memory in bytes by an operation's name."""

    enabled: bool = True
    fallback_activations: int = 0
    native_operations: int = 0
    layer_operations: int = 0
    wasm_fallbacks: int = 0
    operation_timings: dict[str, dict[str, float]] = field(
        default_factory=dict[str, dict[str, float]]
    )
    memory_usage: dict[str, dict[str, int]] = field(default_factory=dict[str, dict[str, int]])

    def count_operation(
        self, name: str, seconds: float, *, fallback: bool, by_layers: bool = False, wasm: bool
    ) -> None:
        """Count one operation that succeeded."""
        if not self.enabled:
            return
        self.fallback_activations += fallback
        self.native_operations += not fallback
        self.layer_operations += by_layers
        self.wasm_fallbacks += wasm
        ms = 1e3 * seconds
        known = self.operation_timings.get(name, {"count": 0, "total_ms": 0.0, "max_ms": 0.0})
        count, total = known["count"] + 1, known["total_ms"] + ms
        self.operation_timings[name] = {
            "count": count,
            "total_ms": total,
            "mean_ms": total / count,
            "max_ms": max(known["max_ms"], ms),
        }

    def record_memory(
        self, name: str, plain_nbytes: int, nbytes: int, threshold_nbytes: int
    ) -> None:
        """Record an operation's peak, and what it would hold in one piece."""
        if not self.enabled:
            return
        known = self.memory_usage.get(name, {"plain_nbytes": 0, "peak_nbytes": 0})
        self.memory_usage[name] = {
            "plain_nbytes": max(known["plain_nbytes"], plain_nbytes),
            "peak_nbytes": max(known["peak_nbytes"], nbytes),
            "threshold_nbytes": threshold_nbytes,
        }

    def reset(self) -> None:
        """Count from zero again."""
        self.fallback_activations = self.native_operations = 0
        self.layer_operations = self.wasm_fallbacks = 0
        self.operation_timings, self.memory_usage = {}, {}

    def as_metrics(self) -> dict[str, Any]:
        """All counts, as new dictionaries."""
        return {
            "fallback_activations": self.fallback_activations,
            "native_operations": self.native_operations,
            "layer_operations": self.layer_operations,
            "wasm_fallbacks": self.wasm_fallbacks,
            "operation_timings": {n: dict(t) for n, t in self.operation_timings.items()},
            "memory_usage": {n: dict(m) for n, m in self.memory_usage.items()},
        }
