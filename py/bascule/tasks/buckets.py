"""Shape buckets: texts of any number and length share a few prepared programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

TOKEN_LIMITS = (16, 32, 64, 128, 256, 512)
BATCH_LIMITS = (1, 4, 32)
# Rows (texts x tokens) of the largest bucket: limits the memory of intermediate values. A device
# may allow fewer.
MAX_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Bucket:
    """The largest batch and number of tokens of a prepared program."""

    batch: int
    tokens: int


SMALLEST = Bucket(1, 1)


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts (by index) that run together; `tokens` is the longest one's length."""

    indices: tuple[int, ...]
    tokens: int
    bucket: Bucket


def all_buckets(max_tokens: int, max_rows: int = MAX_ROWS) -> list[Bucket]:
    """Return every bucket that a model of that many tokens can need, smallest first.

    `max_rows` limits their rows, down to those of one text.
    """
    results = {
        Bucket(_capped(b, t, max_rows), t) for t in _limits(max_tokens) for b in BATCH_LIMITS
    }
    return sorted(results, key=lambda b: (b.tokens, b.batch))


@lru_cache(maxsize=1024)
def bucket_for(batch: int, tokens: int, max_tokens: int, max_rows: int = MAX_ROWS) -> Bucket:
    """Return the smallest bucket that holds `batch` texts of `tokens` tokens."""
    buckets = all_buckets(max_tokens, max_rows)
    fitting = [b for b in buckets if b.batch >= batch and b.tokens >= tokens]
    return min(fitting, key=lambda b: (b.batch * b.tokens, b.tokens))


def make_batches(
    lengths: Sequence[int],
    max_tokens: int,
    max_rows: int = MAX_ROWS,
    max_texts: int = BATCH_LIMITS[-1],
) -> list[Batch]:
    """Group texts of similar length, at most `max_texts`, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    limits = _limits(max_tokens)
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        tokens = lengths[order[start]]
        # A text of less than half the longest one's length would be mostly padding: it goes into
        # the next batch. Among short texts a second pass costs more than the padding.
        shortest = tokens // 2 if tokens > TOKEN_LIMITS[0] else 0
        rounded = next(t for t in limits if t >= tokens)
        max_batch = min(max_texts, _capped(BATCH_LIMITS[-1], rounded, max_rows))
        chosen = [i for i in order[start : start + max_batch] if lengths[i] >= shortest]
        start += len(chosen)
        bucket = bucket_for(len(chosen), tokens, max_tokens, max_rows)
        batches.append(Batch(tuple(chosen), tokens, bucket))
    return batches


def smaller(
    batch: Batch, lengths: Sequence[int], max_tokens: int, max_rows: int = MAX_ROWS
) -> list[Batch]:
    """Return the same texts in batches of the next smaller bucket; none if there is none."""
    fewer = [b.batch for b in all_buckets(max_tokens, max_rows) if b.batch < batch.bucket.batch]
    if len(batch.indices) == 1 or not fewer:
        return []
    count, batches = max(fewer), list[Batch]()
    for start in range(0, len(batch.indices), count):
        indices = batch.indices[start : start + count]
        tokens = max(lengths[i] for i in indices)
        bucket = bucket_for(len(indices), tokens, max_tokens, max_rows)
        batches.append(Batch(indices, tokens, bucket))
    return batches


def _limits(max_tokens: int) -> list[int]:
    return [t for t in TOKEN_LIMITS if t < max_tokens] + [max_tokens]


def _capped(batch: int, tokens: int, max_rows: int) -> int:
    """Return how many of `batch` texts fit `max_rows` at that bucket's number of tokens."""
    return max(1, min(batch, max_rows // tokens))
