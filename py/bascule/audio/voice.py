"""Voice activity by a model: from the probabilities of windows to parts of a recording."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

# Speech continues while its probability is at most this far below the threshold.
_HYSTERESIS = 0.15
_MIN_THRESHOLD = 0.01


@dataclass(frozen=True, slots=True)
class SpeechSpan:
    """A part of a recording with speech; `start` and `end` in seconds."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class SpanRules:
    """What counts as a part; times in seconds.

    Speech starts when its probability reaches `threshold`. Pauses shorter than `min_pause` stay,
    parts of at most `min_speech` are dropped, and each gets `pad` at both ends.
    """

    threshold: float = 0.5
    min_speech: float = 0.25
    min_pause: float = 0.1
    pad: float = 0.03


def speech_spans(
    probabilities: Iterable[float], step: float, duration: float, rules: SpanRules
) -> list[SpeechSpan]:
    """Return the parts of a recording of `duration` seconds, with a probability per `step`."""
    spans = [
        (start * step, min(end * step, duration))
        for start, end in _windows(probabilities, rules, step)
        if min(end * step, duration) - start * step > rules.min_speech
    ]
    results: list[SpeechSpan] = []
    for at, (start, end) in enumerate(spans):
        before = spans[at - 1][1] if at else -2 * rules.pad
        after = spans[at + 1][0] if at + 1 < len(spans) else duration + 2 * rules.pad
        # Overlapping pads share the pause.
        start -= min(rules.pad, (start - before) / 2)
        end += min(rules.pad, (after - end) / 2)
        results.append(SpeechSpan(max(0.0, start), min(duration, end)))
    return results


def _windows(
    probabilities: Iterable[float], rules: SpanRules, step: float
) -> list[tuple[int, int]]:
    """Return the first window of each part, and the one after its last."""
    results: list[tuple[int, int]] = []
    start = quiet = None
    at = -1
    for at, probability in enumerate(probabilities):
        if probability >= rules.threshold:
            start, quiet = at if start is None else start, None
        elif start is not None:
            if probability < max(rules.threshold - _HYSTERESIS, _MIN_THRESHOLD):
                quiet = at if quiet is None else quiet
            if quiet is not None and (at - quiet) * step >= rules.min_pause:
                results.append((start, quiet))
                start = quiet = None
    if start is not None:
        results.append((start, at + 1))
    return results
