"""A model that threads use at once, with an event loop each, answers as it does one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import DeviceLostError, InputError
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

TIERS = ["webgpu", "wasm", "cpu"]
THREADS = 6
LLAMA = tiny("tiny-q4_1").path
PROMPTS = [[1 + i, 20 + i, 3, 40 - i] for i in range(THREADS)]


def in_threads(work: Callable[[int], Coroutine[Any, Any, Any]], count: int = THREADS) -> list[Any]:
    """What `work(0)`, `work(1)`, ... give, each in a thread and a loop of its own, all at once."""
    start = threading.Barrier(count)

    def run(index: int) -> Any:
        async def begun() -> Any:
            start.wait()
            return await work(index)

        return asyncio.run(begun())

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def texts_of(index: int) -> list[str]:
    return [
        " ".join(f"w{(index * 7 + i * 3 + j) % 60}" for j in range(1 + i % 9)) for i in range(40)
    ]


@pytest.fixture(params=TIERS)
def encoder(request: pytest.FixtureRequest) -> Iterator[bascule.EmbeddingModel]:
    model = asyncio.run(bascule.load(TINY_BERT, tier=request.param))
    yield model
    model.close()


@pytest.fixture(params=TIERS)
def llama(request: pytest.FixtureRequest) -> Iterator[bascule.LanguageModel]:
    model = asyncio.run(bascule.load(LLAMA, tier=request.param))
    yield model
    model.close()


def test_embeddings_of_many_threads_are_those_of_one(encoder: bascule.EmbeddingModel) -> None:
    expected = [asyncio.run(encoder.embed(texts_of(i))) for i in range(THREADS)]

    async def work(index: int) -> list[np.ndarray]:
        return await asyncio.gather(*(encoder.embed(texts_of(index)) for _ in range(4)))

    for index, result in enumerate(in_threads(work)):
        for embeddings in result:
            np.testing.assert_allclose(embeddings, expected[index], atol=1e-6)
    assert encoder.stats["texts"] == 5 * THREADS * len(texts_of(0))


def test_answers_of_many_threads_are_those_of_one(llama: bascule.LanguageModel) -> None:
    async def text(index: int) -> list[int]:
        made = await llama.generate(PROMPTS[index], max_new_tokens=12, sampling=GREEDY)
        return made.ids

    expected = [asyncio.run(text(i)) for i in range(THREADS)]
    logits = asyncio.run(llama.logits(PROMPTS[0]))

    async def work(index: int) -> tuple[list[list[int]], np.ndarray]:
        several = asyncio.gather(text(index), text(index))
        return await several, await llama.logits(PROMPTS[0])

    for index, (result, numbers) in enumerate(in_threads(work)):
        assert result == [expected[index]] * 2
        np.testing.assert_allclose(numbers, logits, atol=1e-4)
    assert llama.stats["generations"] == 3 * THREADS


def test_embed_trim_tune_and_prepare_beside_each_other(encoder: bascule.EmbeddingModel) -> None:
    expected = asyncio.run(encoder.embed(texts_of(0)))

    async def work(index: int) -> None:
        match index % 3:
            case 0:
                for _ in range(3):
                    np.testing.assert_allclose(
                        await encoder.embed(texts_of(0)), expected, atol=1e-6
                    )
            case 1:
                for _ in range(10):
                    assert encoder.trim() >= 0
                    await asyncio.sleep(0.005)
            case _:
                await encoder.prepare(4, 32)
                await encoder.tune(0.2)

    in_threads(work)


@pytest.mark.parametrize("tier", TIERS)
def test_two_models_on_one_device_in_two_threads(tier: str) -> None:
    async def load_both() -> tuple[Any, Any, Any]:
        opened = await bascule.open_device(tier)
        encoder = await opened.load(TINY_BERT)
        return opened, encoder, await opened.load(LLAMA)

    opened, encoder, llama = asyncio.run(load_both())
    embeddings = asyncio.run(encoder.embed(texts_of(1)))
    text = asyncio.run(llama.generate(PROMPTS[1], max_new_tokens=16, sampling=GREEDY))

    async def work(index: int) -> None:
        if index % 2:
            for _ in range(4):
                np.testing.assert_allclose(await encoder.embed(texts_of(1)), embeddings, atol=1e-6)
        else:
            made = await llama.generate(PROMPTS[1], max_new_tokens=16, sampling=GREEDY)
            assert made.ids == text.ids

    in_threads(work)
    encoder.close()
    llama.close()
    opened.close()


def test_a_stream_that_waits_for_its_reader_does_not_hold_the_device() -> None:
    async def work() -> None:
        opened = await bascule.open_device("cpu")
        encoder = await opened.load(TINY_BERT)
        llama = await opened.load(LLAMA)
        async with llama.stream(PROMPTS[0], max_new_tokens=4, sampling=GREEDY) as stream:
            async for _ in stream:  # another loop needs the device before the next piece is read
                await asyncio.to_thread(lambda: asyncio.run(encoder.embed(["w1"])))
        encoder.close()
        llama.close()

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_model_closed_by_another_thread(encoder: bascule.EmbeddingModel) -> None:
    begun = threading.Event()

    async def work(index: int) -> str:
        if index == 0:
            begun.wait()
            encoder.close()
            return "closed"
        for _ in range(200):
            try:
                await encoder.embed(texts_of(index))
            except (DeviceLostError, InputError) as error:
                return str(error)
            begun.set()
        return "never noticed"

    result = in_threads(work, 4)
    assert result[0] == "closed"
    assert all("closed" in output for output in result)
    with pytest.raises(InputError, match="one that was closed"):
        asyncio.run(encoder.embed(["w1"]))


# wgpu reports that a read ends in a loop that is closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_turn_is_lost_with_its_event_loop(llama: bascule.LanguageModel) -> None:
    """Somebody closes a loop in which a stream was left open."""
    loop = asyncio.new_event_loop()
    stream = llama.stream(PROMPTS[0], max_new_tokens=8, sampling=GREEDY)
    loop.run_until_complete(anext(aiter(stream)))
    loop.close()
    result = asyncio.run(llama.generate(PROMPTS[0], max_new_tokens=8, sampling=GREEDY))
    assert len(result.ids) == 8
    with suppress(RuntimeError):  # the loop of its hooks is closed
        asyncio.run(stream.aclose())


def test_cancelled_waiters_leave_the_queue(llama: bascule.LanguageModel) -> None:
    async def work() -> None:
        async with llama.stream(PROMPTS[0], max_new_tokens=8, sampling=GREEDY) as stream:
            await anext(aiter(stream))
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(llama.generate(PROMPTS[1], max_new_tokens=2), 0.05)
        assert len((await llama.generate(PROMPTS[1], max_new_tokens=2)).ids) > 0

    asyncio.run(work())
