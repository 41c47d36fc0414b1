"""Samples of a recording: checked, and resampled to a model's rate."""

from __future__ import annotations

from math import gcd

from bascule.base.arrays import Array, ArrayLike, np
from bascule.errors import InputError

_HINT = "Pass one channel of floats from -1 to 1, such as samples / 32768 of 16-bit sound."
# Sample rates of recordings.
_MIN_RATE, _MAX_RATE = 1000, 768_000
# The resampling filter: zero crossings on each side, and the shape of its Kaiser window (80 dB).
_CROSSINGS = 32
_BETA = 8.0
# The filter's cut-off relative to the lower Nyquist frequency: its slope ends there.
_ROLL_OFF = 0.92
# Numbers that a resampling gathers at once.
_BATCH = 1 << 20


def checked_samples(samples: ArrayLike, where: str = "samples") -> Array:
    """Return samples as float32 (N); InputError unless they are finite floats of one channel."""
    result = np.asarray(samples)
    if result.dtype.kind != "f":
        raise InputError(where, "floats", f"dtype {result.dtype}", hint=_HINT)
    if result.ndim != 1:
        raise InputError(where, "one axis (N)", f"shape {result.shape}", hint=_HINT)
    if not result.size:
        raise InputError(where, "at least one sample", "none")
    finite = np.isfinite(result)
    if not finite.all():
        at = int(np.argmin(finite))
        raise InputError(where, "finite numbers", f"{result[at]} at index {at:,}")
    return np.ascontiguousarray(result, np.float32)


def resample(samples: Array, rate: int, wanted: int) -> Array:
    """Return samples (N) at another rate, (ceil(N * wanted / rate)) float32.

    A Kaiser-windowed sinc in polyphase form (Smith & Gossett 1984). InputError for an impossible
    rate.
    """
    if isinstance(rate, bool) or not isinstance(rate, int):
        raise InputError("sample_rate", "a whole number of samples a second", repr(rate))
    if not _MIN_RATE <= rate <= _MAX_RATE:
        expected = f"{_MIN_RATE:,} to {_MAX_RATE:,} samples a second"
        raise InputError("sample_rate", expected, f"{rate:,}")
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return samples
    filters = _phases(up, down)
    taps = filters.shape[1]
    count = -(-len(samples) * up // down)
    wide = np.pad(samples, (taps // 2 - 1, taps // 2 + 1))
    views = np.lib.stride_tricks.sliding_window_view(wide, taps)
    y = np.empty(count, np.float32)
    for first in range(0, count, batch := max(1, _BATCH // taps)):
        at = np.arange(first, min(first + batch, count), dtype=np.int64) * down
        y[first : first + batch] = np.einsum("nk,nk->n", views[at // up], filters[at % up])
    return y


def _phases(up: int, down: int) -> Array:
    """Row p (taps) weighs the samples around a position p / up after one of them."""
    cut = _ROLL_OFF * min(1.0, up / down)
    half = int(np.ceil(_CROSSINGS / cut))
    at = np.arange(1 - half, half + 1)[None, :] - (np.arange(up) / up)[:, None]
    shape = np.i0(_BETA * np.sqrt(np.maximum(1 - (at / half) ** 2, 0))) / np.i0(_BETA)
    weights = cut * np.sinc(cut * at) * shape
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
