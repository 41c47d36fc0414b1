"""Which tokens may follow: suppression and timestamps, by the rules of OpenAI's decoding.py."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from bascule.base.arrays import Array, np
from bascule.tasks.speech_tokens import SpeechTokens

# The first timestamp of a window is at most 1 s, in steps of 20 ms.
_LATEST_FIRST = 50
_NO_END = 2**32 - 1


@dataclass(frozen=True, slots=True)
class AllowedTokens:
    """Which ids may follow: [text_first, timestamps) and [times_first, times_end).

    `is_first`: it is the first token of its window.
    """

    text_first: int
    times_first: int
    times_end: int
    is_first: bool

    def words(self) -> array[int]:
        """Return the state `rules` of the op allowed_token."""
        return array("I", [self.text_first, self.times_first, self.times_end, self.is_first])


def allowed_ids(ids: Sequence[int], tokens: SpeechTokens, *, timestamps: bool) -> AllowedTokens:
    """Return which ids may follow the text `ids` of a window.

    Timestamps come in pairs (a segment's end follows its text, the start of the next follows that
    end) and do not go back.
    """
    first = tokens.timestamps
    if not timestamps:
        return AllowedTokens(0, first, first, not ids)
    if not ids:
        return AllowedTokens(first, first, first + _LATEST_FIRST + 1, True)
    last_is_time = ids[-1] >= first
    opened = len(ids) < 2 or ids[-2] >= first
    if last_is_time and opened:
        return AllowedTokens(0, first, first, False)
    times = [token for token in ids if token >= first]
    earliest = first
    if times:
        # A segment is not empty: its end is later than its start.
        earliest = times[-1] if last_is_time else times[-1] + 1
    return AllowedTokens(tokens.end if last_is_time else 0, earliest, _NO_END, False)


def kinds_of(tokens: SpeechTokens, vocabulary: int) -> array[int]:
    """Return the state `kinds` of the op allowed_token: 2 never, 1 not first, else 0."""
    result = array("I", [0]) * vocabulary
    for kind, listed in ((1, tokens.not_first), (2, tokens.never)):
        for token in listed:
            result[token] = kind
    return result


def allowed_logits(
    logits: Array, ids: Sequence[int], tokens: SpeechTokens, *, timestamps: bool
) -> Array:
    """Return logits (V) float64 with minus infinity where a token may not follow the text `ids`.

    With `timestamps`, one is forced if all of them together are likelier than any text. The op
    allowed_token does the same on the device.
    """
    first, allowed = tokens.timestamps, allowed_ids(ids, tokens, timestamps=timestamps)
    y = logits.astype(np.float64)
    y[list(tokens.never)] = -np.inf
    if allowed.is_first:
        y[list(tokens.not_first)] = -np.inf
    y[: allowed.text_first] = -np.inf
    y[first : allowed.times_first] = -np.inf
    y[allowed.times_end :] = -np.inf
    if timestamps and np.logaddexp.reduce(y[first:]) > y[:first].max():
        y[:first] = -np.inf
    return y


def log_softmax(x: Array) -> Array:
    """Return log probabilities (V); at least one of x is finite."""
    shifted = x - x.max()
    return shifted - np.log(np.exp(shifted).sum())
