"""A device that is lost in the middle of the work: another one goes on, and the answer stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import LanguageModel, Sampling
from bascule.choosing import reopening
from bascule.choosing.auto import ModelNeed, open_tier
from bascule.choosing.openers import OpenedTier
from bascule.errors import DeviceLostError, TierUnavailableError
from bascule.tasks.loaded import LoadedModel
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny
from tests.weights.faulty import FaultyServer

GOLDENS = Path(__file__).resolve().parent.parent / "goldens"
TINY_K = tiny("tiny-k")
PROMPT = TINY_K.chats[0].prompt_ids


def lose_device(model: LoadedModel) -> None:
    """As a driver's reset does: the program itself has closed nothing."""
    backend: Any = model._backend
    backend.gpu._device.destroy()


async def language_model(**options: Any) -> LanguageModel:
    return await bascule.load(TINY_K.path, tier="webgpu", **options)


async def test_embeddings_go_on() -> None:
    expected = golden("tiny-bert")
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        before = await model.embed(expected.texts)
        held = model.stats["gpu_nbytes"]
        lose_device(model)
        again = await model.embed(expected.texts)
        assert np.array_equal(again, before)
        assert (model.tier, model.stats["revivals"]) == ("webgpu", 1)
        assert "lost" in model.tier_reason
        assert model.stats["gpu_nbytes"] <= held
        assert model.lost == ""


async def test_many_callers_open_one_device() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        texts = [f"w{n} w{n + 1}" for n in range(1, 30)]
        expected = await model.embed(texts)
        work = [asyncio.ensure_future(model.embed([text])) for text in texts]
        await asyncio.sleep(0)
        lose_device(model)
        result = np.concatenate(await asyncio.gather(*work))
        assert cosines(result, expected).min() > 0.99999
        assert model.stats["revivals"] == 1


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.5, seed=7)])
async def test_a_stream_of_tokens_goes_on(sampling: Sampling) -> None:
    async with await language_model() as model:
        whole = await model.generate(PROMPT, sampling=sampling, max_new_tokens=24)
        pieces: list[str] = []
        async with model.stream(PROMPT, sampling=sampling, max_new_tokens=24) as stream:
            async for piece in stream:
                pieces.append(piece)
                if len(stream.result.ids) in (5, 6, 15):
                    lose_device(model)
        assert stream.result.ids == whole.ids
        assert "".join(pieces) == stream.result.text == whole.text
        assert stream.result.stop_reason == "length"
        assert model.stats["revivals"] >= 2
        assert stream.result.stats["crossings_per_token"] > 0


async def test_a_device_lost_in_the_prompt() -> None:
    ids = [*PROMPT, *range(10, 100), *range(10, 100)]
    async with await language_model() as model:
        whole = await model.generate(ids, sampling=GREEDY, max_new_tokens=4)
        other = [7, *ids]  # no prefix to be reused
        lost: list[int] = []

        def lose_once(done: int, _: int) -> None:
            if not lost:
                lost.append(done)
                lose_device(model)

        await model.generate(other, sampling=GREEDY, max_new_tokens=4, progress=lose_once)
        again = await model.generate(ids, sampling=GREEDY, max_new_tokens=4)
        assert lost
        assert again.ids == whole.ids


async def test_work_that_kills_every_device_ends() -> None:
    async with await language_model() as model:
        with pytest.raises(DeviceLostError):
            await model.generate(PROMPT, sampling=GREEDY, progress=lambda *_: lose_device(model))
        assert model.stats["revivals"] == 2
        made = await model.generate(PROMPT, sampling=GREEDY, max_new_tokens=3)
        assert len(made.ids) == 3


async def test_logits_go_on() -> None:
    async with await language_model() as model:
        expected = await model.logits(TINY_K.ids)
        lose_device(model)
        assert np.array_equal(await model.logits(TINY_K.ids), expected)


async def test_weights_come_again_from_the_cache(tmp_path: Path) -> None:
    with FaultyServer(GOLDENS) as server:
        async with await bascule.load(f"{server.url}/tiny-bert", tier="webgpu") as model:
            expected = await model.embed("w4 w5")
            server.down()
            lose_device(model)
            assert np.array_equal(await model.embed("w4 w5"), expected)


async def test_quantized_weights_are_made_again() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu", quantize="q8_0") as model:
        expected = await model.embed("w4 w5")
        lose_device(model)
        assert np.array_equal(await model.embed("w4 w5"), expected)


@pytest.fixture
def no_webgpu_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose GPU does not come back."""
    open_tier = reopening.open_tier

    async def without_webgpu(wanted: str, _: ModelNeed | None = None) -> OpenedTier:
        if wanted == "webgpu":
            raise TierUnavailableError("webgpu", "the GPU process died too often")
        return await open_tier("cpu" if wanted == "auto" else wanted)

    monkeypatch.setattr(reopening, "open_tier", without_webgpu)
    monkeypatch.setattr(reopening, "WAITS_S", (0.0, 0.01))


@pytest.mark.usefixtures("no_webgpu_again")
async def test_another_tier_is_the_last_step() -> None:
    opened = bascule.Device(await open_tier("webgpu"), "auto")
    async with await opened.load(TINY_K.path) as model:
        whole = await model.generate(PROMPT, sampling=GREEDY, max_new_tokens=12)
        async with model.stream(PROMPT, sampling=GREEDY, max_new_tokens=12) as stream:
            async for _ in stream:
                if len(stream.result.ids) == 5:
                    lose_device(model)
        assert stream.result.ids == whole.ids
        assert model.tier == "cpu"
        assert "the device of webgpu was lost" in model.tier_reason
    opened.close()


@pytest.mark.usefixtures("no_webgpu_again")
async def test_a_tier_that_was_asked_for_is_not_left() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        lose_device(model)
        with pytest.raises(TierUnavailableError, match="died too often"):
            await model.embed("w4")
