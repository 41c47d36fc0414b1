"""Sounds for tests, the same on every machine; 16 kHz, float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
RATE = 16_000
KEPT_FRAMES = [*range(0, 3000, 61), 2999]


def sweep(seconds: float = 30.0) -> Array:
    """A tone that rises from 50 to 7900 Hz over noise that swells."""
    at = np.arange(int(seconds * RATE)) / RATE
    phase = 2 * np.pi * (50 * at + (7900 - 50) / (2 * seconds) * at**2)
    noise = np.random.default_rng(5).standard_normal(len(at)) * 0.03 * at / seconds
    return (0.4 * np.sin(phase) + noise).astype(np.float32)


def clicks() -> Array:
    """Two seconds of clicks, loud and soft, the last at the very end."""
    x = np.zeros(2 * RATE, np.float32)
    x[::1601] = 0.9 ** np.arange(len(x[::1601]))
    x[-1] = 0.5
    return x


def silence() -> Array:
    """One sample of nothing."""
    return np.zeros(1, np.float32)


SOUNDS: Mapping[str, Callable[[], Array]] = {"sweep": sweep, "clicks": clicks, "silence": silence}
