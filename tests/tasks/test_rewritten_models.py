"""Whole models through rewritten attention and partitioned caches: the goldens stay the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from math import inf

import pytest

import bascule
from bascule import LanguageModel
from bascule.program.ops.parts import attention_work, part_of
from bascule.program.program import Program
from bascule.program.rewrites.attention import does_attention
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import Limits, StrategyName, fit
from bascule.tasks import kv_cache, language, language_programs
from bascule.tasks.embedder import EmbedderSettings
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny
from tests.tasks.test_reopening import lose_device

TINY = tiny("tiny-q4_1")
PLAIN = language_programs._program
ALL = (partitioned_kv_cache, head_partitioning, chunked_attention)
Strategies = set[StrategyName]


@pytest.fixture(params=["cpu", "wasm", "webgpu"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    result = await bascule.open_device(request.param)
    yield result
    result.close()


def cut(program: Program, applied: Strategies) -> Program:
    """Within a twentieth of its attention's work a dispatch, caches in 3/4 of what they take."""
    calls = [call for call in program.calls if does_attention(call)]
    caches = [state.nbytes for state in program.states if state.name.startswith("cache.")]
    limits = Limits(binding_nbytes=max(caches, default=inf) * 3 / 4)
    if calls:
        part, work = part_of(calls[0]), attention_work(calls[0])
        minimum = work // part.n_heads // part.n_queries  # one query of one head
        limits = Limits(limits.binding_nbytes, dispatch_work=max(work / 20, minimum))
    result, more = fit(program, limits, ALL)
    applied |= {t.strategy for t in more}
    works = [attention_work(call) for call in result.calls if does_attention(call)]
    assert max(works, default=0) <= limits.dispatch_work
    kept = [state.nbytes for state in result.states if state.name.startswith("cache.")]
    assert max(kept, default=0) <= limits.binding_nbytes
    assert result.planned_nbytes == program.planned_nbytes
    return result


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Strategies:
    """Models are made of rewritten programs; the strategies that were taken."""
    result: Strategies = set()
    plain, plain_bucket = language_programs._program, EmbedderSettings.program
    monkeypatch.setattr(language_programs, "_program", lambda *a: cut(plain(*a), result))
    monkeypatch.setattr(
        EmbedderSettings, "program", lambda self, bucket: cut(plain_bucket(self, bucket), result)
    )
    return result


async def load_tiny(opened: bascule.Device, **options: object) -> LanguageModel:
    model = await opened.load(TINY.path, **options)  # pyright: ignore
    assert isinstance(model, LanguageModel)
    return model


@pytest.mark.parametrize("dtype", ["f16", "f32"])
async def test_text_is_the_reference_s_while_partitions_grow(
    opened: bascule.Device, dtype: str, applied: Strategies, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "PAGE", 8)
    monkeypatch.setattr(language, "PAGE", 8)
    chat = TINY.chats[0]
    async with await load_tiny(opened, cache_dtype=dtype) as model:
        before = model.stats["cache_slots"]
        result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
        assert model.stats["cache_slots"] > before
        logits = await model.logits(TINY.ids)
    assert chat.parts_at(result.ids) is None
    assert len(result.ids) == (32 if chat.end is None else chat.end)
    assert cosines(logits, TINY.logits).min() > 0.9999
    assert applied == {"partitioned_kv_cache", "head_partitioning", "chunked_attention"}


async def test_a_ring_of_partitions_wraps(opened: bascule.Device, applied: Strategies) -> None:
    prompt = [*TINY.chats[0].prompt_ids, *range(10, 100)]  # longer than the ring
    options = {"sampling": GREEDY, "max_new_tokens": 80, "overflow": "slide"}
    async with await load_tiny(opened, max_length=48, cache_dtype="f32") as model:
        result = await model.generate(prompt, **options)
        assert model.stats["cache_slots"] < len(prompt) + len(result.ids)
    assert "partitioned_kv_cache" in applied
    with pytest.MonkeyPatch.context() as plain:
        plain.setattr(language_programs, "_program", PLAIN)
        async with await load_tiny(opened, max_length=48, cache_dtype="f32") as model:
            expected = await model.generate(prompt, **options)
    assert result.ids == expected.ids


async def test_a_lost_device_s_partitions_are_filled_again(applied: Strategies) -> None:
    prompt = TINY.chats[0].prompt_ids
    async with await bascule.load(TINY.path, tier="webgpu") as model:
        whole = await model.generate(prompt, sampling=GREEDY, max_new_tokens=20)
        async with model.stream(prompt, sampling=GREEDY, max_new_tokens=20) as stream:
            async for _ in stream:
                if len(stream.result.ids) == 7:
                    lose_device(model)
        assert model.stats["revivals"] == 1
    assert stream.result.ids == whole.ids
    assert "partitioned_kv_cache" in applied


async def test_embeddings_are_the_reference_s(opened: bascule.Device, applied: Strategies) -> None:
    expected = golden("tiny-bert")
    async with await opened.load(TINY_BERT) as model:
        result = await model.embed(expected.texts)
    assert cosines(result, expected.embeddings).min() > 0.99999
    assert applied == {"head_partitioning", "chunked_attention"}
