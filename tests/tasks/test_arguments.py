"""Arguments of other types: what means the same works, the rest is an InputError with words."""

from __future__ import annotations

import array
import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError
from bascule.tasks.batched import in_slices
from bascule.tasks.buckets import make_batches
from bascule.tasks.embeddings import Embeddings
from bascule.tasks.sampler import GREEDY, Sampling
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

IDS = [1, 5, 9, 2]
MESSAGES = [{"role": "user", "content": "Hi there"}]


@pytest.fixture
async def llama() -> AsyncIterator[bascule.LanguageModel]:
    async with await bascule.load(tiny("tiny-q4_1").path, tier="cpu") as model:
        yield model


@pytest.fixture
async def encoder() -> AsyncIterator[bascule.EmbeddingModel]:
    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        yield model


@pytest.mark.parametrize(
    "ids",
    [
        np.array(IDS),
        np.array(IDS, np.uint32),
        tuple(np.int64(i) for i in IDS),
        iter(IDS),
        (i for i in IDS),
        array.array("i", IDS),
    ],
)
async def test_ids_of_any_integer_type(llama: bascule.LanguageModel, ids: Any) -> None:
    made = await llama.generate(ids, max_new_tokens=3, sampling=GREEDY)
    assert made.prompt_ids == IDS
    assert all(type(i) is int for i in made.prompt_ids)
    expected = await llama.generate(IDS, max_new_tokens=3, sampling=GREEDY)
    assert made.ids == expected.ids


async def test_options_that_are_none_are_the_defaults(llama: bascule.LanguageModel) -> None:
    nothing: Any = dict.fromkeys(
        ("max_new_tokens", "max_tokens", "stop", "overflow", "steps_in_flight", "progress", "seed")
    )
    made = await llama.generate(IDS, **nothing, sampling={"temperature": 0, "seed": None})
    plain = await llama.generate(IDS, sampling=GREEDY)
    assert (made.ids, made.stop_reason) == (plain.ids, plain.stop_reason)


async def test_openai_s_words(llama: bascule.LanguageModel) -> None:
    expected = await llama.generate(IDS, max_new_tokens=np.int64(6), sampling=GREEDY)
    made = await llama.generate(IDS, max_tokens=6, temperature=0)
    assert made.ids == expected.ids
    seeded = [await llama.generate(IDS, max_tokens=6, top_p=0.9, seed=5) for _ in range(2)]
    assert seeded[0].ids == seeded[1].ids
    assert expected.text
    stop = expected.text[:2]
    stopped = await llama.generate(IDS, max_tokens=6, temperature=np.float32(0), stop=stop)
    assert stopped.stop_reason == "stop"
    assert stop not in stopped.text


async def test_content_in_parts_and_none(llama: bascule.LanguageModel) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "text", "text": "Hi there"}]}]
    assert llama.chat_ids(parts) == llama.chat_ids(MESSAGES)
    two: Any = [{"role": "user", "content": [{"type": "text", "text": "Hi"}, "there"]}]
    assert llama.chat_ids(two) == llama.chat_ids([{"role": "user", "content": "Hi\nthere"}])
    none: Any = [{"role": "user", "content": None}]
    assert llama.chat_ids(none) == llama.chat_ids([{"role": "user", "content": ""}])
    assert llama.chat_ids(iter(MESSAGES)) == llama.chat_ids(MESSAGES)  # pyright: ignore
    for bad, result in [
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0]['content'][0]"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "['text']"),
        ([], "a list of one or more messages, found an empty one"),
        ("Hi", "a list of messages"),
        (None, "a list of messages"),
        ({"role": "user", "content": "Hi"}, "a list of messages"),
    ]:
        with pytest.raises(InputError) as caught:
            llama.chat_ids(bad)  # pyright: ignore
        assert result in str(caught.value)


@pytest.mark.parametrize(
    "prompt",
    [
        b"bytes", bytearray(b"x"), 5, None, 1.5, [1.5], [1.0], np.array([1.5]), [True], ["1"],
        [None], {1: 2}, {1, 2}, [-1], [10**9], [10**400], [float("nan")], [[1]], [], "" + "",
    ],
)  # fmt: skip
async def test_prompts_that_are_none(llama: bascule.LanguageModel, prompt: Any) -> None:
    if prompt == "":
        prompt = iter(())
    with pytest.raises(InputError, match="prompt"):
        await llama.generate(prompt)
    with pytest.raises(InputError, match="ids"):
        await llama.logits(prompt)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_new_tokens": 1.5}, "max_new_tokens: expected a whole number of at least 1"),
        ({"max_new_tokens": float("nan")}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"max_new_tokens": "5"}, "max_new_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_new_tokens": 3}, "max_tokens"),
        ({"steps_in_flight": float("nan")}, "steps_in_flight"),
        ({"steps_in_flight": 2.5}, "steps_in_flight"),
        ({"stop": 5}, "stop"),
        ({"stop": [b"a"]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"overflow": "slid"}, "Did you mean 'slide'"),
        ({"overflow": 1}, "overflow"),
        ({"sampling": "greedy"}, "sampling: expected a Sampling, or a dict"),
        ({"sampling": {"temprature": 0}}, "Did you mean 'temperature'"),
        ({"sampling": {"temperature": "hot"}}, "temperature"),
        ({"sampling": GREEDY, "temperature": 1}, "no settings beside it"),
        ({"temperature": 10**400}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        ({"seed": -1}, "seed"),
        ({"progress": 5}, "progress"),
        ({"max_new_token": 5}, "Did you mean 'max_new_tokens'"),
    ],
)
async def test_options_of_another_kind(
    llama: bascule.LanguageModel, options: Any, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        llama.stream(IDS, **options)
    assert told in str(caught.value)


def test_sampling_takes_numbers_of_numpy() -> None:
    made = Sampling(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint8(9))  # pyright: ignore
    assert made == Sampling(temperature=0.5, top_k=3, seed=9)
    assert type(made.top_k) is int


class Series:
    """What embed() sees of a pandas Series."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __iter__(self) -> Any:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


TEXTS = ["w1 w2", "w3", "w4 w5 w6"]


async def test_texts_of_any_iterable(encoder: bascule.EmbeddingModel) -> None:
    expected = np.asarray(await encoder.embed(TEXTS))
    for texts in (
        tuple(TEXTS), np.array(TEXTS), np.array(TEXTS, object), iter(TEXTS),
        (text for text in TEXTS), Series(TEXTS), dict.fromkeys(TEXTS).keys(),
    ):  # fmt: skip
        if isinstance(texts, type({}.keys())):
            with pytest.raises(InputError):  # a set has no order of its own
                await encoder.embed(texts)
            continue
        np.testing.assert_array_equal(await encoder.embed(texts), expected)
    one = np.asarray(await encoder.embed(np.str_("w3")))
    np.testing.assert_allclose(one, expected[1:2], atol=1e-6)
    np.testing.assert_allclose(await encoder.embed(np.array("w3")), expected[1:2], atol=1e-6)
    assert (await encoder.embed([])).shape == (0, encoder.dimension)


@pytest.mark.parametrize(
    "texts",
    [b"bytes", None, 5, {"a": 1}, {"a"}, [b"x"], [None], ["a", float("nan")], [["a"]],
     np.array([["a", "b"]]), np.array([1, 2])],
)  # fmt: skip
async def test_texts_that_are_none(encoder: bascule.EmbeddingModel, texts: Any) -> None:
    with pytest.raises(InputError, match="embed, texts"):
        await encoder.embed(texts)


async def test_counts_of_tokens_and_texts_that_were_cut(encoder: bascule.EmbeddingModel) -> None:
    long = " ".join(["w7"] * (encoder.max_tokens + 5))
    exact = " ".join(["w7"] * (encoder.max_tokens - 2))
    result = await encoder.embed(["w1 w2", long, exact])
    assert isinstance(result, Embeddings)
    assert result.n_tokens == (4, encoder.max_tokens, encoder.max_tokens)
    assert result.total_tokens == 4 + 2 * encoder.max_tokens
    assert result.truncated == (1,)
    with pytest.raises(InputError) as caught:
        await encoder.embed(["w1", long], truncate=False)
    assert "text 1" in str(caught.value)
    assert f"found {encoder.max_tokens + 7:,}" in str(caught.value)
    assert (await encoder.embed([exact], truncate=False)).truncated == ()


async def test_embeddings_are_an_array(encoder: bascule.EmbeddingModel) -> None:
    result = await encoder.embed(TEXTS)
    assert isinstance(result, np.ndarray)
    assert result.dtype == np.float32
    for plain in (
        result[0],
        result[:2],
        result @ result.T,
        result + 1,
        np.asarray(result),
        result * 2.0,
    ):
        assert type(plain) is np.ndarray
    assert np.linalg.norm(result, axis=1).shape == (3,)
    assert isinstance(result.sum(), np.floating)
    again = pickle.loads(pickle.dumps(result))
    assert (again.n_tokens, again.shape) == (result.n_tokens, result.shape)
    result += 1
    assert isinstance(result, Embeddings | np.ndarray)


async def test_batch_size_bounds_a_pass(encoder: bascule.EmbeddingModel) -> None:
    texts = ["w1 w2"] * 20
    expected = np.asarray(await encoder.embed(texts))
    done: list[int] = []
    passes = encoder.stats["passes"]
    result = await encoder.embed(texts, batch_size=8, progress=lambda n, _: done.append(n))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert encoder.stats["passes"] - passes == 3
    assert done == [8, 16, 20]
    for bad in (0, -1, 1.5, "8", True):
        with pytest.raises(InputError, match="batch_size"):
            await encoder.embed(texts, batch_size=bad)  # pyright: ignore
    with pytest.raises(InputError, match="truncate"):
        await encoder.embed(texts, truncate="yes")  # pyright: ignore


def test_batches_of_many_texts_take_few_steps() -> None:
    """Each text's length is looked up a few times, however many texts there are."""

    class Counted(list[int]):
        looked = 0

        def __getitem__(self, at: Any) -> Any:
            Counted.looked += 1
            return super().__getitem__(at)

    lengths = Counted(3 + i * 7 % 250 for i in range(20_000))
    batches = make_batches(lengths, 256)
    assert sorted(i for batch in batches for i in batch.indices) == list(range(20_000))
    assert Counted.looked <= 4 * len(lengths)


async def test_embedding_many_texts_lets_others_work(encoder: bascule.EmbeddingModel) -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    ids = await in_slices(encoder._tokenizer.encode, ["w1"] * 5000)  # pyright: ignore
    counting.cancel()
    assert len(ids) == 5000
    assert turns >= 4
