"""How much a load computes: each pass of a model costs Python milliseconds in a page."""

from __future__ import annotations

import pytest

import bascule
from bascule.tasks import embedder
from bascule.tasks.buckets import all_buckets
from tests.goldens import TINY_BERT


@pytest.mark.parametrize("tier", ["wasm", "cpu"])
async def test_a_load_makes_each_pass_once(tier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    freeze = embedder.freeze

    def counting(graph: object) -> object:
        made.append(graph)
        return freeze(graph)

    monkeypatch.setattr(embedder, "freeze", counting)
    async with await bascule.load(TINY_BERT, tier=tier) as model:
        n_buckets = len(all_buckets(model.max_tokens))
        # One for the width of an embedding, and that of the bucket that is prepared ahead.
        assert len(made) <= n_buckets + 2
