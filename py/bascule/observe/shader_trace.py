"""A WebGPUDebugger's capture: dispatches, their errors, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from bascule.backend.tiers import Tier
from bascule.backend.tracing import TOLERANCE, Difference, TracedCall, TracedKernel
from bascule.program.ops import operands_of


@dataclass(frozen=True, slots=True)
class ShaderTrace:
    """The dispatches of traced passes in order; `note` says why nothing could be captured."""

    tier: Tier
    device: str
    timed_by: str
    n_passes: int
    calls: Sequence[TracedCall]
    note: str = ""

    @property
    def findings(self) -> tuple[TracedCall, ...]:
        """The dispatches with a difference, in order."""
        return tuple(call for call in self.calls if call.difference is not None)

    @property
    def first_wrong(self) -> TracedCall | None:
        """The first dispatch with a difference; None if all are right."""
        return next(iter(self.findings), None)

    @property
    def kernels(self) -> tuple[TracedKernel, ...]:
        """Each kernel once, in the order of its first dispatch."""
        return tuple({call.kernel.digest: call.kernel for call in self.calls}.values())

    def __str__(self) -> str:
        if self.note:
            return self.note
        if not self.calls:
            return "No pass of a model ran on this device while its dispatches were captured."
        passes = "1 pass" if self.n_passes == 1 else f"{self.n_passes} passes"
        count = f"{len(self.calls)} dispatches of {passes} on {self.tier}"
        if self.first_wrong is None:
            return f"{count}: all agree with numpy."
        others = len(self.findings) - 1
        more = f" Dispatches that differ, too: {others}." if others else ""
        return f"{count}: {sentence(self.first_wrong)}{more}"

    def as_json(self) -> dict[str, Any]:
        """Return everything but the arrays, as plain values."""
        return {
            "tier": self.tier,
            "device": self.device,
            "timed_by": self.timed_by,
            "n_passes": self.n_passes,
            "tolerance": TOLERANCE,
            "summary": str(self),
            "calls": [_call(call) for call in self.calls],
            "kernels": [_kernel(kernel) for kernel in self.kernels],
        }


def sentence(call: TracedCall) -> str:
    """Return what is wrong with a dispatch that has a difference."""
    result = call.difference
    assert result is not None
    where = (
        f"dispatch {call.index}, op {call.call.op} by {call.kernel.variant} "
        f"({call.kernel.file}, entry point {call.kernel.entry}): element {list(result.index)} of "
        f"{result.value}"
    )
    count = f"{result.n_wrong} of {result.n_elements} elements are wrong."
    if result.fault == "wrong":
        return f"{where} is {result.got:.7g}, numpy has {result.expected:.7g}; {count}"
    holding = ", ".join(result.not_finite)
    if not holding:
        return f"{where} is NaN on inputs without one, in numpy, too; {count}"
    return f"{where} is NaN, as in {holding}, which it reads; {count}"


def _call(call: TracedCall) -> dict[str, Any]:
    operands = [
        {"name": each.name, "value": value.name, "shape": list(value.limits), "dtype": value.dtype}
        for each, value in operands_of(call.call)
    ]
    result = call.call.result
    difference = call.difference
    return {
        "index": call.index,
        "program": call.program,
        "op": call.call.op,
        "attributes": {name: str(value) for name, value in call.call.attributes},
        "operands": operands,
        "result": {"value": result.name, "shape": list(result.limits), "dtype": result.dtype},
        "kernel": call.kernel.digest,
        "params": dict(call.kernel.params),
        "workgroups": list(call.kernel.workgroups),
        "deviation": _plain(call.deviation),
        "difference": None if difference is None else _difference(call, difference),
        "ms": None if call.seconds is None else 1e3 * call.seconds,
    }


def _difference(call: TracedCall, difference: Difference) -> dict[str, Any]:
    return {
        "fault": difference.fault,
        "sentence": sentence(call),
        "value": difference.value,
        "index": list(difference.index),
        "expected": _plain(difference.expected),
        "got": _plain(difference.got),
        "n_wrong": difference.n_wrong,
        "n_elements": difference.n_elements,
        "deviation": _plain(difference.deviation),
    }


def _kernel(kernel: TracedKernel) -> dict[str, Any]:
    return {
        "digest": kernel.digest,
        "file": kernel.file,
        "entry": kernel.entry,
        "variant": kernel.variant,
        "bindings": kernel.bindings,
        "constants": dict(kernel.constants),
        "wgsl": kernel.wgsl,
    }


def _plain(number: float) -> float | str:
    """Replace NaN and infinity, which JSON does not have."""
    return number if isfinite(number) else str(number)
