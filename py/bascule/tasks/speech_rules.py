"""Which tokens may follow: suppression and timestamps, by the rules of OpenAI's decoding.py."""

from __future__ import annotations

from collections.abc import Sequence

from bascule.base.arrays import Array, np
from bascule.tasks.speech_tokens import SpeechTokens

# The first timestamp of a window is at most 1 s, in steps of 20 ms.
_LATEST_FIRST = 50


def allowed_logits(
    logits: Array, ids: Sequence[int], tokens: SpeechTokens, *, timestamps: bool
) -> Array:
    """Return logits (V) float64 with minus infinity where a token may not follow the text `ids`.

    With `timestamps` they come in pairs, do not go back, and one is forced where all of them
    together are likelier than any text.
    """
    y = logits.astype(np.float64)
    y[list(tokens.never)] = -np.inf
    if not ids:
        y[list(tokens.not_first)] = -np.inf
    if not timestamps:
        y[tokens.timestamps :] = -np.inf
        return y
    _pair(y, ids, tokens)
    if not ids:
        y[: tokens.timestamps] = -np.inf
        y[tokens.timestamps + _LATEST_FIRST + 1 :] = -np.inf
    logs = log_softmax(y)
    times, text = logs[tokens.timestamps :], logs[: tokens.timestamps]
    if np.logaddexp.reduce(times) > text.max():
        y[: tokens.timestamps] = -np.inf
    return y


def _pair(y: Array, ids: Sequence[int], tokens: SpeechTokens) -> None:
    """A segment's end follows its text, another's beginning follows that end."""
    first = tokens.timestamps
    last_is_time = bool(ids) and ids[-1] >= first
    opened = len(ids) < 2 or ids[-2] >= first
    if last_is_time and opened:
        y[first:] = -np.inf
    elif last_is_time:
        y[: tokens.end] = -np.inf
    times = [token for token in ids if token >= first]
    if times:
        # A segment is not empty: its end is later than its beginning.
        least = times[-1] if last_is_time and not opened else times[-1] + 1
        y[first:least] = -np.inf


def log_softmax(x: Array) -> Array:
    """Return the logarithms of probabilities (V); at least one of x is finite."""
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
