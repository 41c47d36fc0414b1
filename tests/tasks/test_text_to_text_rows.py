"""Several texts at once: the answers of one after the other, by fewer passes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import TextToTextModel
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.errors import ContextLengthError, InputError, NotFiniteError
from bascule.tasks.text_to_text_rows import RowPasses
from tests.goldens.t5 import LONG, TEXTS, build
from tests.scarce import device_memory

TIERS = ("webgpu", "wasm", "cpu")
MANY = [*TEXTS, "w1", "translate: w12 w13 w14 w15", "w50 w51", "w9 w8 w7", "w3 w3 w3", "w77"]
OPTIONS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalised": {"sampling": {"temperature": 0.0, "repetition_penalty": 1.7}},
    "drawn": {"temperature": 1.5, "top_k": 20, "top_p": 0.9, "seed": 11},
    "stopped": {"stop": ["w69", "w2"]},
}


@asynccontextmanager
async def loaded(path: Path, tier: str, **options: Any) -> AsyncIterator[TextToTextModel]:
    async with await bascule.load(build("flan", path / "m"), tier=tier, **options) as model:
        assert isinstance(model, TextToTextModel)
        yield model


class Passes:
    """Counts the passes over several texts; `at` is called before each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: Any = lambda n: None) -> None:
        self.sources: list[int] = []
        self.targets: list[int] = []
        read, step = RowPasses.read_sources, RowPasses.step

        async def counted_read(passes: RowPasses, sources: Any) -> None:
            self.sources.append(len(sources))
            await read(passes, sources)

        async def counted_step(passes: RowPasses, place: int, tokens: Any) -> Any:
            self.targets.append(place)
            at(len(self.targets))
            return await step(passes, place, tokens)

        monkeypatch.setattr(RowPasses, "read_sources", counted_read)
        monkeypatch.setattr(RowPasses, "step", counted_step)


def told(generation: Any) -> tuple[Any, ...]:
    return generation.ids, generation.text, generation.stop_reason


@pytest.mark.parametrize("tier", TIERS)
async def test_answers_are_those_of_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tier: str
) -> None:
    async with loaded(tmp_path, tier) as model:
        for name, options in OPTIONS.items():
            alone = [await model.generate(text, max_new_tokens=9, **options) for text in MANY]
            with monkeypatch.context() as patch:
                passes = Passes(patch)
                together = await model.generate(MANY, max_new_tokens=9, **options)
            assert [told(each) for each in together] == [told(each) for each in alone], name
            assert passes.sources == [8, 2]
            lengths = [len(each.ids) + (each.stop_reason == "end") for each in alone]
            assert len(passes.targets) == max(lengths[:8]) + max(lengths[8:])
            if name == "greedy":
                assert len({len(text) for text in MANY}) > 5
            if name == "stopped":
                assert {each.stop_reason for each in together} >= {"stop", "length"}
            for one, several in zip(alone, together, strict=True):
                for key in ("prompt_tokens", "new_tokens"):
                    assert one.stats[key] == several.stats[key]
                assert several.stats["total_ms"] >= several.stats["first_token_ms"] > 0
        assert model.stats["generations"] == 2 * len(MANY) * len(OPTIONS)


async def test_a_row_that_ends_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    async with loaded(tmp_path, "cpu") as model:
        alone = [await model.generate(text, max_new_tokens=20) for text in MANY]
        # What one of them says first ends that one, and those that say it later.
        (word, *_) = alone[1].text.split()
        stopped = await model.generate(MANY[:8], max_new_tokens=20, stop=word)
        ends = {len(each.ids) for each in stopped}
        assert 1 in ends
        assert len(ends) > 1
        for one, each in zip(alone, stopped, strict=False):
            assert one.ids[: len(each.ids)] == each.ids


async def test_a_target_longer_than_the_first_slots(tmp_path: Path) -> None:
    async with loaded(tmp_path, "webgpu") as model:
        alone = [await model.generate(text, max_new_tokens=150) for text in TEXTS]
        together = await model.generate(TEXTS, max_new_tokens=150)
        assert [told(each) for each in together] == [told(each) for each in alone]
        assert max(len(each.ids) for each in together) > 128


async def test_the_context_ends_each_of_them(tmp_path: Path) -> None:
    async with loaded(tmp_path, "cpu", max_length=9) as model:
        for each in await model.generate(["w1", "w2 w3"]):
            assert (len(each.ids), each.stop_reason) == (8, "context")
        with pytest.raises(ContextLengthError, match="207"):
            await model.generate(["w1", LONG])


async def test_batch_size_says_how_many_are_answered_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passes = Passes(monkeypatch)
    async with loaded(tmp_path, "cpu") as model:
        for size, sources in ((3, [3, 3, 3]), (1, []), (100, [8, 2])):
            passes.sources.clear()
            await model.generate(MANY, batch_size=size, max_new_tokens=2)
            assert passes.sources == sources  # the last of ten is answered alone
        with pytest.raises(InputError, match="batch_size"):
            await model.generate(MANY, batch_size=0)
        assert await model.generate([]) == []
        seen: list[tuple[int, int]] = []
        await model.generate(TEXTS, max_new_tokens=2, progress=lambda *at: seen.append(at))
        assert seen == [(n, n) for n in (len(model.tokenizer.encode(text)) for text in TEXTS)]
    pipe = await bascule.pipeline("text2text-generation", str(tmp_path / "m"), tier="cpu")
    async with pipe:
        passes.sources.clear()
        answers = await pipe(TEXTS, batch_size=2, max_new_tokens=3)
        assert passes.sources == [2, 2]
        assert len(answers) == len(TEXTS)


async def test_a_lost_device_is_recovered_behind_the_tokens_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with loaded(tmp_path, "webgpu") as model:
        for options in (OPTIONS["greedy"], OPTIONS["drawn"]):
            whole = await model.generate(TEXTS, max_new_tokens=9, **options)

            def lose(n: int) -> None:
                if n == 4:
                    backend: Any = model._backend
                    backend.gpu._device.destroy()

            with monkeypatch.context() as patch:
                passes = Passes(patch, lose)
                again = await model.generate(TEXTS, max_new_tokens=9, **options)
            assert [told(each) for each in again] == [told(each) for each in whole]
            assert passes.targets[:8] == [0, 1, 2, 3, 0, 1, 2, 3]
            assert len(passes.sources) == 2
        assert model.stats["revivals"] == 2


async def test_where_memory_ends_they_are_answered_one_after_the_other(tmp_path: Path) -> None:
    async with loaded(tmp_path, "webgpu") as model:
        alone = [await model.generate(text, max_new_tokens=9) for text in TEXTS]
        gpu: Any = model._backend
        assert isinstance(gpu.gpu, NativeGpu)
        held = gpu.gpu.allocated_nbytes
        with device_memory(gpu.gpu, held + 100_000) as refused:
            together = await model.generate(TEXTS, max_new_tokens=9)
            assert refused
        assert [told(each) for each in together] == [told(each) for each in alone]
        assert model.stats["memory_retries"] == 1


async def test_a_call_that_is_cancelled_leaves_the_model_as_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for tier in TIERS:
        async with loaded(tmp_path / tier, tier) as model:
            expected = await model.generate(TEXTS, max_new_tokens=9)
            begun = asyncio.Event()
            with monkeypatch.context() as patch:
                Passes(patch, lambda n, begun=begun: begun.set() if n == 3 else None)
                call = asyncio.ensure_future(model.generate(TEXTS, max_new_tokens=400))
                await begun.wait()
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            again, single = await asyncio.gather(
                model.generate(TEXTS, max_new_tokens=9), model.generate(TEXTS[1], max_new_tokens=9)
            )
            assert [each.ids for each in again] == [each.ids for each in expected]
            assert single.ids == expected[1].ids
            assert model.trim() > 0  # nothing runs any more
            assert [e.ids for e in await model.generate(TEXTS[:2], max_new_tokens=9)] == [
                e.ids for e in expected[:2]
            ]


async def test_passes_that_were_cancelled_half_prepared_are_prepared_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with loaded(tmp_path, "cpu") as model:
        prepare = model._backend.prepare
        begun, n_prepared = asyncio.Event(), 0

        async def second_waits(*arguments: Any) -> Any:
            nonlocal n_prepared
            n_prepared += 1
            if n_prepared == 2:
                begun.set()
                await asyncio.Event().wait()
            return await prepare(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(model._backend, "prepare", second_waits)
            call = asyncio.ensure_future(model.generate(TEXTS, max_new_tokens=9))
            await begun.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        alone = [await model.generate(text, max_new_tokens=9) for text in TEXTS]
        together = await model.generate(TEXTS, max_new_tokens=9)
        assert [told(each) for each in together] == [told(each) for each in alone]


@pytest.mark.parametrize("tier", TIERS)
async def test_a_logit_that_is_no_number_is_an_error(tmp_path: Path, tier: str) -> None:
    async with loaded(tmp_path, tier) as model:
        target = model.weights.targets["decoder.final_layer_norm.weight"]
        model.weights.write(target, 0, np.full(32, np.nan, np.float32))
        with pytest.raises(NotFiniteError, match="a logit after token 0"):
            await model.generate(TEXTS, max_new_tokens=3)
        model.weights.write(target, 0, np.ones(32, np.float32))
        for answer in await model.generate(TEXTS, max_new_tokens=3):
            assert len(answer.ids) == 3
