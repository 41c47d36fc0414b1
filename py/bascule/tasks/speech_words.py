"""Words of a text: the tokens that form them, their times, and their punctuation."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from bascule.tasks.transcription import Segment, Word

# Languages that write no spaces between words.
_UNSPACED = ("zh", "ja", "th", "lo", "my", "yue")
# Punctuation that belongs to the word after it, and to the word before it.
_OPENS = "\"'“¿([{-"
_CLOSES = "\"'.。,，!！?？:：”)]}、"  # noqa: RUF001  full-width, as written
_SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001  as above
# The upper bound of a typical word's duration; a word lasts at most twice as long as a typical one.
_MAX_TYPICAL_S = 0.7
_MAX_OFF_S = 0.5


@dataclass(frozen=True, slots=True)
class Timed:
    """A word with seconds of its window; `n_tokens` form it, none once it belongs to another."""

    text: str
    n_tokens: int
    start: float
    end: float
    probability: float


def split_words(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str], language: str
) -> list[tuple[str, int]]:
    """Return words with their numbers of tokens, which add up to those of `ids`.

    A word starts at a space or punctuation; in languages without spaces, each character does.
    """
    characters = _whole_characters(ids, decode)
    if language in _UNSPACED:
        return characters
    words: list[tuple[str, int]] = []
    for text, count in characters:
        alone = text.startswith(" ") or text.strip() in string.punctuation
        if alone or not words:
            words.append((text, count))
        else:
            words[-1] = words[-1][0] + text, words[-1][1] + count
    return words


def _whole_characters(
    ids: Sequence[int], decode: Callable[[Sequence[int]], str]
) -> list[tuple[str, int]]:
    """Return texts of as few tokens as end with a whole character; a last one may be broken."""
    results: list[tuple[str, int]] = []
    first = 0
    for end in range(1, len(ids) + 1):
        text = decode(ids[first:end])
        if "\ufffd" not in text or end == len(ids):
            results.append((text, end - first))
            first = end
    return results


def timed_words(
    words: Sequence[tuple[str, int]], times: Sequence[float], probabilities: Sequence[float]
) -> list[Timed]:
    """Return words with their times; `times` (N + 1) are the start of each token, and the end."""
    results: list[Timed] = []
    first = 0
    for text, count in words:
        end = first + count
        probability = sum(probabilities[first:end]) / count
        results.append(Timed(text, count, times[first], times[end], probability))
        first = end
    return results


def typical_duration(words: Sequence[Timed]) -> float:
    """Return the median of the words' seconds, at most 0.7; 0 if all are empty."""
    lasting = [word.end - word.start for word in words if word.end > word.start]
    return min(_MAX_TYPICAL_S, median(lasting)) if lasting else 0.0


def without_pauses(words: Sequence[Timed], typical: float) -> list[Timed]:
    """Return words without the pauses at the ends of sentences."""
    result, longest = list(words), 2 * typical
    for at in range(1, len(result)):
        word = result[at]
        if not typical or word.end - word.start <= longest:
            continue
        if word.text in _SENTENCE_ENDS:
            result[at] = replace(word, end=word.start + longest)
        elif result[at - 1].text in _SENTENCE_ENDS:
            result[at] = replace(word, start=word.end - longest)
    return result


def with_punctuation(words: Sequence[Timed]) -> list[Timed]:
    """Return as many words, with punctuation merged into its neighbour."""
    result = list(words)
    behind = len(result) - 1
    for at in range(len(result) - 2, -1, -1):
        word = result[at]
        if word.text.startswith(" ") and word.text.strip() in _OPENS and word.text.strip():
            result[behind] = _joined(word, result[behind], result[behind])
            result[at] = replace(word, text="", n_tokens=0)
        else:
            behind = at
    before = 0
    for at in range(1, len(result)):
        word = result[at]
        if word.text and word.text in _CLOSES and not result[before].text.endswith(" "):
            result[before] = _joined(result[before], word, result[before])
            result[at] = replace(word, text="", n_tokens=0)
        else:
            before = at
    return result


def _joined(first: Timed, second: Timed, timing: Timed) -> Timed:
    text, n_tokens = first.text + second.text, first.n_tokens + second.n_tokens
    return replace(timing, text=text, n_tokens=n_tokens)


def give_words(
    segments: Sequence[Segment], words: Sequence[Timed], end: int, offset: float, spoken: float
) -> list[Segment]:
    """Return a window's segments with their words.

    Ids from `end` on are not text. `offset` is the window's start in seconds, `spoken` the end of
    the speech before it.
    """
    typical = typical_duration(words)
    remaining = with_punctuation(without_pauses(words, typical))
    results: list[Segment] = []
    at = 0
    for segment in segments:
        n_tokens, mine = sum(token < end for token in segment.ids), list[Word]()
        while at < len(remaining) and n_tokens > 0:
            word = remaining[at]
            n_tokens -= word.n_tokens
            at += 1
            if word.text:
                times = offset + word.start, offset + word.end
                mine.append(Word(*times, word.text, word.probability))
        mine = _within(mine, segment, typical, spoken)
        spoken = mine[-1].end if mine else segment.end
        rounded = (replace(w, start=round(w.start, 2), end=round(w.end, 2)) for w in mine)
        results.append(replace(segment, words=tuple(rounded)))
    return results


def _within(words: list[Word], segment: Segment, typical: float, spoken: float) -> list[Word]:
    """Shorten words that are too long at either end of a segment: they include pauses."""
    if not words:
        return words
    longest, first = 2 * typical, words[0]
    late = first.end - spoken > 4 * typical
    long_pair = len(words) > 1 and words[1].end - first.start > 2 * longest
    if late and (first.end - first.start > longest or long_pair):
        if len(words) > 1 and words[1].end - words[1].start > longest:
            bound = max(words[1].end / 2, words[1].end - longest)
            words[1] = replace(words[1], start=bound)
            first = replace(first, end=bound)
        words[0] = first = replace(first, start=max(0.0, first.end - longest))
    if first.start + _MAX_OFF_S < segment.start < first.end:
        words[0] = replace(first, start=max(0.0, min(first.end - typical, segment.start)))
    last = words[-1]
    if last.start < segment.end < last.end - _MAX_OFF_S:
        words[-1] = replace(last, end=max(last.start + typical, segment.end))
    return words
