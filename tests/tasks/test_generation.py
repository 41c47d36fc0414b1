"""Language models on every native tier, against an independent float64 implementation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import LanguageModel, Sampling
from bascule.errors import ContextLengthError, InputError, ModelFileError, UnsupportedModelError
from bascule.tasks import kv_cache, language
from bascule.tasks.sampler import GREEDY
from tests.goldens import cosines
from tests.goldens.llama import TINY_NAMES, TinyName, tiny

TIERS = ("webgpu", "cpu")
# Few questions do for the same GPU held to less, and for WebAssembly, which is a page's.
on_all_tiers = pytest.mark.parametrize("opened", [*TIERS, "webgpu-limited", "wasm"], indirect=True)


@pytest.fixture(params=TIERS)
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    """Each tier once a test; models share its device."""
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def load_tiny(
    opened: bascule.Device | None = None, name: TinyName = "tiny-q4_1", **options: object
) -> LanguageModel:
    load: Any = opened.load if opened else partial(bascule.load, tier="cpu")
    model = await load(tiny(name).path, **options)
    assert isinstance(model, LanguageModel)
    return model


@on_all_tiers
@pytest.mark.parametrize("name", TINY_NAMES)
async def test_greedy_text_is_the_reference_s(opened: bascule.Device, name: TinyName) -> None:
    async with await load_tiny(opened, name) as model:
        for chat in tiny(name).chats:
            assert model.chat_ids(chat.messages) == chat.prompt_ids
            result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
            assert chat.parts_at(result.ids) is None
            if chat.end is None:
                assert (len(result.ids), result.stop_reason) == (32, "length")
            else:
                assert (len(result.ids), result.stop_reason) == (chat.end, "end")
                assert result.text == chat.text


@on_all_tiers
@pytest.mark.parametrize("name", TINY_NAMES)
@pytest.mark.parametrize(("cache", "tolerance"), [("f16", 0.06), ("f32", 2e-3)])
async def test_logits_are_the_reference_s(
    opened: bascule.Device, name: TinyName, cache: str, tolerance: float
) -> None:
    expected = tiny(name).logits
    async with await load_tiny(opened, name, cache_dtype=cache) as model:
        result = await model.logits(tiny(name).ids)
    assert result.dtype == np.float32
    assert cosines(result, expected).min() > 0.9999
    assert np.abs(result - expected).max() < tolerance


async def test_two_passes_of_a_prompt_are_in_flight_and_none_is_read(
    opened: bascule.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    async with await load_tiny(opened) as model:
        backend, states = model._backend, model._cache.states

        def done() -> Awaitable[None]:
            events.append("queued")
            return finished(waits())

        async def finished(work: Awaitable[None]) -> None:
            await work
            events.append("done")

        def read(name: str, offset: int, into: Any) -> Awaitable[None]:
            events.append("read")
            return reads(name, offset, into)

        waits, reads = backend.done, states.read
        monkeypatch.setattr(backend, "done", done)
        monkeypatch.setattr(states, "read", read)
        prompt = [n % 100 for n in range(3 * 64 + 1)]
        await model.generate(prompt, sampling=GREEDY, max_new_tokens=1)
    in_flight = ["queued", "queued", "done", "queued", "done", "done"]
    assert events[: len(in_flight)] == in_flight
    assert set(events[len(in_flight) :]) == {"read"}


async def test_a_later_turn_computes_only_what_is_new(opened: bascule.Device) -> None:
    first = tiny("tiny-q4_1").chats[0]
    async with await load_tiny(opened) as model:
        turn = await model.chat(first.messages, sampling=GREEDY, max_new_tokens=9)
        answer = {"role": "assistant", "content": turn.text}
        more = [*first.messages, answer, {"role": "user", "content": "And then?"}]
        ids = model.chat_ids(more)
        again = await model.generate(ids, sampling=GREEDY, max_new_tokens=24)
        assert again.stats["reused_tokens"] >= len(first.prompt_ids)
    async with await load_tiny(opened) as fresh:
        alone = await fresh.generate(ids, sampling=GREEDY, max_new_tokens=24)
    assert alone.stats["reused_tokens"] == 0
    assert again.ids == alone.ids


async def test_the_same_prompt_again_computes_one_token(opened: bascule.Device) -> None:
    chat = tiny("tiny-q4_1").chats[0]
    async with await load_tiny(opened) as model:
        once = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=8)
        again = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=8)
    assert again.ids == once.ids
    assert again.stats["reused_tokens"] == len(chat.prompt_ids) - 1


@on_all_tiers
async def test_a_cache_grows_by_pages_in_the_middle_of_a_text(
    opened: bascule.Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "PAGE", 8)
    monkeypatch.setattr(language, "PAGE", 8)
    chat = tiny("tiny-q4_1").chats[0]
    async with await load_tiny(opened) as model:
        before = model.stats["cache_slots"]
        result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
        after = model.stats["cache_slots"]
    assert chat.parts_at(result.ids) is None
    assert before == 8
    assert len(chat.prompt_ids) + 32 <= after <= len(chat.prompt_ids) + 48


async def test_a_prompt_that_does_not_fit_is_refused_and_loses_nothing(
    opened: bascule.Device,
) -> None:
    chat = tiny("tiny-q4_1").chats[0]
    async with await load_tiny(opened, max_length=64) as model:
        with pytest.raises(ContextLengthError, match="context of 64") as caught:
            await model.generate([5] * 64)
        assert (caught.value.n_tokens, caught.value.limit) == (65, 64)
        with pytest.raises(ContextLengthError):
            await model.logits([5] * 65)
        result = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=100)
    assert chat.parts_at(result.ids) is None
    assert result.stop_reason == "context"
    assert len(result.prompt_ids) + len(result.ids) == 64


async def test_a_prompt_of_8000_tokens(tmp_path: Path, rng: np.random.Generator) -> None:
    name = b"llama.context_length" + (4).to_bytes(4, "little")
    sound = tiny("tiny-q4_1").path.read_bytes()
    assert name + (256).to_bytes(4, "little") in sound
    path = tmp_path / "long.gguf"
    path.write_bytes(
        sound.replace(name + (256).to_bytes(4, "little"), name + (8192).to_bytes(4, "little"))
    )
    prompt = rng.integers(0, 500, 8000).tolist()
    seen: list[int] = []
    texts: list[list[int]] = []
    for tier in TIERS:
        async with await bascule.load(path, tier=tier, cache_dtype="f32") as model:
            result = await model.generate(
                prompt,
                sampling=GREEDY,
                max_new_tokens=4,
                progress=lambda done, _: seen.append(done),
            )
            assert model.stats["cache_slots"] == 8192
        texts.append(result.ids)
    assert texts[0] == texts[1]
    assert seen[-1] == 7999
    assert max(np.diff([0, *seen[: len(seen) // 2]])) <= 64


async def test_a_sliding_context_goes_on_and_tiers_agree() -> None:
    texts: list[list[int]] = []
    chat = tiny("tiny-k").chats[0]
    for tier in TIERS:
        opened = await bascule.open_device(tier)
        async with await load_tiny(opened, "tiny-k", max_length=56, cache_dtype="f32") as model:
            prompt = [*chat.prompt_ids, *range(10, 50)]
            result = await model.generate(
                prompt, sampling=GREEDY, max_new_tokens=150, overflow="slide"
            )
            # What was said before is a prefix of the next prompt still.
            more = await model.generate(
                [*prompt, *result.ids, 7], sampling=GREEDY, max_new_tokens=8, overflow="slide"
            )
            assert more.stats["reused_tokens"] >= len(prompt) + len(result.ids) - 1
        opened.close()
        texts.append([*result.ids, *more.ids])
    assert len(texts[0]) == 158
    assert texts[0] == texts[1]


async def test_steps_in_vain_spoil_no_later_prompt(opened: bascule.Device) -> None:
    """A ring that surplus steps have wrapped is not taken for the text that it held."""
    chat = tiny("tiny-k").chats[0]
    short = chat.prompt_ids[:20]
    async with await load_tiny(opened, "tiny-k", max_length=64) as model:
        alone = await model.generate(short, sampling=GREEDY, max_new_tokens=9)
        room = 128 - len(chat.prompt_ids)  # slots left in the ring
        async with model.stream(
            chat.prompt_ids,
            sampling=GREEDY,
            max_new_tokens=500,
            overflow="slide",
            steps_in_flight=32,
        ) as stream:
            async for _ in stream:
                if len(stream.result.ids) >= room - 2:
                    break
        again = await model.generate(short, sampling=GREEDY, max_new_tokens=9)
    assert again.ids == alone.ids


async def test_sampling_repeats_by_its_seed_and_varies_without(
    opened: bascule.Device,
) -> None:
    prompt = tiny("tiny-q4_1").chats[0].prompt_ids
    hot = Sampling(temperature=3.0, top_p=1.0, min_p=0.0, seed=7)
    async with await load_tiny(opened) as model:
        once, again = [await model.generate(prompt, sampling=hot, max_new_tokens=20) for _ in "ab"]
        assert once.ids == again.ids
        other = Sampling(temperature=3.0, top_p=1.0, min_p=0.0)
        texts = {
            tuple((await model.generate(prompt, sampling=other, max_new_tokens=20)).ids)
            for _ in range(3)
        }
        assert len(texts) == 3


async def test_a_repetition_penalty_ends_repeating(opened: bascule.Device) -> None:
    chat = next(c for c in tiny("tiny-k").chats if len(set(c.ids)) < len(c.ids))
    async with await load_tiny(opened, "tiny-k") as model:
        strict = Sampling(temperature=0.0, repetition_penalty=50.0)
        result = await model.generate(chat.prompt_ids, sampling=strict, max_new_tokens=32)
    assert len(set(result.ids)) == len(result.ids)


async def test_a_stop_string_ends_the_text_before_it(opened: bascule.Device) -> None:
    prompt = tiny("tiny-mixed").chats[0].prompt_ids
    async with await load_tiny(opened, "tiny-mixed") as model:
        whole = await model.generate(prompt, sampling=GREEDY, max_new_tokens=32)
        stop = whole.text[len(whole.text) // 2 :][:3]
        assert stop
        result = await model.generate(prompt, sampling=GREEDY, max_new_tokens=32, stop=[stop])
        pieces: list[str] = []
        async with model.stream(prompt, sampling=GREEDY, max_new_tokens=32, stop=[stop]) as stream:
            pieces += [piece async for piece in stream]
    assert result.stop_reason == "stop"
    assert result.text == whole.text[: whole.text.index(stop)]
    assert "".join(pieces) == result.text
    assert stop not in result.text


async def test_cancelling_frees_what_the_call_held(opened: bascule.Device) -> None:
    chat = tiny("tiny-q4_1").chats[0]
    async with await load_tiny(opened) as model:
        whole = await model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32)
        before = model.stats
        for steps in range(6):
            stream = model.stream([9] * 70, sampling=GREEDY, max_new_tokens=100)

            async def use(stream: language.TextStream = stream) -> None:
                async with stream:
                    async for _ in stream:
                        pass

            task = asyncio.ensure_future(use())
            for _ in range(steps * 5):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        again = await asyncio.wait_for(
            model.chat(chat.messages, sampling=GREEDY, max_new_tokens=32), 60
        )
        after = model.stats
    assert again.ids == whole.ids
    for name in ("gpu_nbytes", "gpu_objects", "cache_nbytes"):
        assert after.get(name, 0) <= before.get(name, 0) + (1 << 16), name


async def test_leaving_a_stream_early_lets_the_next_one_run(opened: bascule.Device) -> None:
    prompt = tiny("tiny-mixed").chats[0].prompt_ids
    async with await load_tiny(opened, "tiny-mixed") as model:
        async with model.stream(prompt, sampling=GREEDY) as stream:
            async for _ in stream:
                break
        whole = await asyncio.wait_for(
            model.generate(prompt, sampling=GREEDY, max_new_tokens=9), 60
        )
    assert whole.ids[: len(stream.result.ids)] == stream.result.ids[:9]


async def test_two_generations_at_once_take_turns(opened: bascule.Device) -> None:
    one, two = tiny("tiny-q4_1").chats
    async with await load_tiny(opened) as model:
        result = await asyncio.gather(
            *(model.chat(c.messages, sampling=GREEDY, max_new_tokens=32) for c in (one, two, one))
        )
    assert [chat.parts_at(f.ids) for chat, f in zip((one, two, one), result, strict=True)] == [
        None
    ] * 3


async def test_a_token_costs_less_than_one_crossing() -> None:
    async with await load_tiny(await bascule.open_device("webgpu")) as model:
        prompt = tiny("tiny-q4_1").chats[0].prompt_ids
        await model.generate(prompt, sampling=GREEDY, max_new_tokens=8)
        result = await model.generate(prompt, sampling=GREEDY, max_new_tokens=32)
        model._backend.close()
    assert result.stats["new_tokens"] == 32
    assert result.stats["crossings_per_token"] < 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"overflow": "wrap"}, "overflow"),
        ({"steps_in_flight": 0}, "steps_in_flight"),
        ({"stop": [""]}, "stop"),
    ],
)
async def test_bad_options_are_refused(options: dict[str, object], told: str) -> None:
    async with await load_tiny() as model:
        with pytest.raises(InputError, match=told):
            await model.generate("a", **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 0.0},
        {"min_p": 2.0},
        {"repetition_penalty": 0.0},
        {"seed": -1},
        {"seed": 1 << 32},
    ],
    ids=str,
)
def test_bad_sampling_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Sampling(**wrong)  # pyright: ignore


async def test_prompts_of_nothing_and_of_no_token_are_refused() -> None:
    async with await load_tiny() as model:
        for prompt in ("", [], [-1], [512], [True]):
            with pytest.raises(InputError, match="prompt"):
                await model.generate(prompt)
        model.close()
        with pytest.raises(InputError, match="open model"):
            await model.generate("a")


async def test_a_file_that_is_no_llama_is_refused(tmp_path: Path) -> None:
    sound = tiny("tiny-q4_1").path.read_bytes()
    other = tmp_path / "other.gguf"
    other.write_bytes(
        sound.replace(
            b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama",
            b"general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0mamba",
        )
    )
    with pytest.raises(UnsupportedModelError, match="mamba"):
        await bascule.load(other, tier="cpu")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(ModelFileError):
        await bascule.load(cut, tier="cpu")


async def test_a_streaming_pipeline_answers_piece_by_piece() -> None:
    chat = tiny("tiny-mixed").chats[0]
    async with bascule.StreamingInferencePipeline(
        str(tiny("tiny-mixed").path), max_length=32, stream_buffer_size=4, tier="cpu"
    ) as pipeline:
        prompt = next(m["content"] for m in chat.messages if m["role"] == "user")
        pieces = [p async for p in pipeline.generate_streaming(prompt, sampling=GREEDY)]
        assert len(pieces) > 1
        assert pipeline.stats["new_tokens"] > 1
