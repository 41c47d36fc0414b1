"""Shape buckets: how texts of any number and length share a few prepared programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

TOKEN_LIMITS = (16, 32, 64, 128, 256, 512)
BATCH_LIMITS = (1, 4, 32)
# Rows (texts x tokens) of the largest bucket: bounds the memory of intermediate values.
MOST_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Bucket:
    """The largest batch and token count of a prepared program."""

    batch: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts (by their index) that run together, `tokens` being the longest one's."""

    indices: tuple[int, ...]
    tokens: int
    bucket: Bucket


def all_buckets(max_tokens: int) -> list[Bucket]:
    """Every bucket that a model of that many tokens can need, smallest first."""
    limits = [t for t in TOKEN_LIMITS if t < max_tokens] + [max_tokens]
    found = {Bucket(_capped(b, t), t) for t in limits for b in BATCH_LIMITS}
    return sorted(found, key=lambda b: (b.tokens, b.batch))


def bucket_for(batch: int, tokens: int, max_tokens: int) -> Bucket:
    """The smallest bucket that holds `batch` texts of `tokens` tokens."""
    fitting = [b for b in all_buckets(max_tokens) if b.batch >= batch and b.tokens >= tokens]
    return min(fitting, key=lambda b: (b.batch * b.tokens, b.tokens))


def make_batches(lengths: Sequence[int], max_tokens: int) -> list[Batch]:
    """Group texts of like length, so that little of a batch is padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i], reverse=True)
    batches: list[Batch] = []
    while order:
        tokens = lengths[order[0]]
        # A text under half the longest one's length would be mostly padding: next batch.
        like = sum(1 for i in order if 2 * lengths[i] >= tokens)
        count = min(like, _capped(BATCH_LIMITS[-1], tokens))
        taken, order = order[:count], order[count:]
        batches.append(Batch(tuple(taken), tokens, bucket_for(count, tokens, max_tokens)))
    return batches


def _capped(batch: int, tokens: int) -> int:
    """As many texts as fit MOST_ROWS once their length is rounded up to a bucket's."""
    limit = next((t for t in TOKEN_LIMITS if t >= tokens), tokens)
    return max(1, min(batch, MOST_ROWS // limit))
