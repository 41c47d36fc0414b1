"""Batching: every text once, no bucket overrun, few distinct shapes."""

from __future__ import annotations

import random

import pytest

from bascule.tasks.buckets import MAX_ROWS, all_buckets, bucket_for, make_batches


@pytest.mark.parametrize("seed", range(30))
def test_every_text_runs_once_in_a_bucket_that_holds_it(seed: int) -> None:
    rng = random.Random(seed)
    max_tokens = rng.choice([5, 16, 100, 256, 512, 1000])
    lengths = [rng.randint(2, max_tokens) for _ in range(rng.randint(0, 90))]
    batches = make_batches(lengths, max_tokens)
    assert sorted(i for b in batches for i in b.indices) == list(range(len(lengths)))
    for batch in batches:
        longest = max(lengths[i] for i in batch.indices)
        assert batch.tokens == longest <= batch.bucket.tokens
        assert len(batch.indices) <= batch.bucket.batch
        assert batch.bucket in all_buckets(max_tokens)
        assert batch.bucket.batch == 1 or batch.bucket.batch * batch.bucket.tokens <= MAX_ROWS
        # Padding stays under half of a batch, short texts excepted.
        assert longest <= 16 or all(lengths[i] >= longest // 2 for i in batch.indices)


def test_buckets_are_few() -> None:
    assert len(all_buckets(256)) == 15
    assert bucket_for(1, 7, 256) == all_buckets(256)[0]
    assert bucket_for(3, 130, 256).tokens == 256
