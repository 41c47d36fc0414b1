"""The processor load that Bascule yields to.

In a page it is the Compute Pressure API (Chromium), natively Linux's pressure stall information
(https://docs.kernel.org/accounting/psi.html). Other systems do not report it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Literal, Protocol

PressureState = Literal["nominal", "fair", "serious", "critical"]

_CPU = Path("/proc/pressure/cpu")
_INTERVAL_S = 1.0
# Percent of the last ten seconds in which a task waited for a processor.
_LEVELS: tuple[tuple[float, PressureState], ...] = (
    (90.0, "critical"),
    (60.0, "serious"),
    (20.0, "fair"),
    (0.0, "nominal"),
)


class Pressure(Protocol):
    """A source of the machine's pressure."""

    @property
    def state(self) -> PressureState:
        """Return the current state; "critical" cannot be sustained for long."""
        ...

    def close(self) -> None:
        """Stop listening."""
        ...


async def open_pressure() -> Pressure | None:
    """Start listening; None if pressure is not reported (`Capabilities.pressure`)."""
    if sys.platform == "emscripten":
        from bascule.machine.pressure_browser import watch

        return await watch(round(1e3 * _INTERVAL_S))
    return LinuxPressure() if has_linux_pressure() else None


def has_linux_pressure(path: Path | None = None) -> bool:
    """Whether the kernel reports it (4.20 and later, if configured)."""
    return _waiting_percent(path or _CPU) is not None


class LinuxPressure:
    """A `Pressure` read from the kernel's file, at most once a second."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or _CPU
        self._read_at = -_INTERVAL_S
        self._state: PressureState = "nominal"

    @property
    def state(self) -> PressureState:
        if monotonic() - self._read_at >= _INTERVAL_S:
            self._read_at = monotonic()
            percent = _waiting_percent(self._path) or 0.0
            self._state = next(state for minimum, state in _LEVELS if percent >= minimum)
        return self._state

    def close(self) -> None:
        """See `Pressure.close`; nothing is open."""


def _waiting_percent(path: Path) -> float | None:
    """Return `avg10` of the line "some avg10=1.53 avg60=... total=..."; None if unavailable."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    for line in lines:
        kind, _, rest = line.partition(" avg10=")
        if kind == "some":
            percent = rest.split(" ")[0]
            return float(percent) if percent.replace(".", "", 1).isdecimal() else None
    return None
