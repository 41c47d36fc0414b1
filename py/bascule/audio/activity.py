"""Voice activity by energy: the parts of a recording that are louder than its background."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.audio.mel import STEP
from bascule.base.arrays import Array, np

# Of the levels of 10 ms frames in dB: the background is the 10th percentile, loud the 95th. A frame
# is active above the background by this share of the difference, but at most this many dB.
_QUIET, _LOUD = 10, 95
_SHARE, _MAX_DB = 0.4, 15.0
# A smaller difference is one sound throughout; a level further below the loud one is silence.
_MIN_RANGE_DB, _MAX_RANGE_DB = 6.0, 60.0
# Pauses shorter than 2 s stay, and 0.4 s before and after each part.
MIN_PAUSE, PAD = 200, 40

# Frames of 10 ms: the start and end of a part.
Span = tuple[int, int]


def active_spans(samples: Array) -> list[Span]:
    """Return the parts of samples (N) at 16 kHz that may be speech, in order.

    Pauses of at least 2 s are left out except for 0.4 s at each end. A recording of one level is
    one part, exact silence has none.
    """
    levels = _levels(samples)
    active = np.flatnonzero(_is_active(levels))
    if not len(active):
        return []
    breaks = np.flatnonzero(np.diff(active) > MIN_PAUSE)
    starts = [int(active[0]), *(int(at) for at in active[breaks + 1])]
    ends = [*(int(at) + 1 for at in active[breaks]), int(active[-1]) + 1]
    return [
        (max(0, start - PAD), min(len(levels), end + PAD))
        for start, end in zip(starts, ends, strict=True)
    ]


def next_window(spans: Sequence[Span], seek: int, longest: int) -> Span | None:
    """Return the window of at most `longest` frames with the next activity from `seek` on.

    It ends with the last part that starts in it. None if no part is left.
    """
    remaining = [(max(start, seek), end) for start, end in spans if end > seek]
    if not remaining:
        return None
    start = remaining[0][0]
    latest = max(end for begin, end in remaining if begin < start + longest)
    return start, min(latest, start + longest)


def _levels(samples: Array) -> Array:
    """Return the level of each 10 ms in dB, -inf for exact silence."""
    n_samples = len(samples) // STEP * STEP
    power = np.square(samples[:n_samples].reshape(-1, STEP), dtype=np.float32).mean(axis=1)
    if n_samples < len(samples):
        power = np.append(power, np.square(samples[n_samples:], dtype=np.float32).mean())
    with np.errstate(divide="ignore"):
        return 10 * np.log10(power)


def _is_active(levels: Array) -> Array:
    finite = np.isfinite(levels)
    if not finite.any():
        return finite
    loud = float(np.percentile(levels[finite], _LOUD))
    raised = np.maximum(levels, loud - _MAX_RANGE_DB)
    quiet = float(np.percentile(raised, _QUIET))
    if loud - quiet < _MIN_RANGE_DB:
        return finite
    return raised > quiet + min(_MAX_DB, _SHARE * (loud - quiet))
