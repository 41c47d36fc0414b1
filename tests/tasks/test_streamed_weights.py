"""Weights that each pass reads again: equal answers, little memory, and files that go away."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.backend.streaming import NO_STREAMING
from bascule.backend.webgpu.streamed import N_SLOTS
from bascule.backend.webnn.backend import WebNnBackend
from bascule.choosing.auto import need_of
from bascule.device.loading import read_programs
from bascule.errors import (
    DeviceLostError,
    FileChangedError,
    FileMissingError,
    InputError,
    LimitError,
    SourceError,
    TierUnavailableError,
)
from bascule.program.rewrites.registry import fit_all
from bascule.program.rewrites.rewrite import Limits
from bascule.program.stages import part_nbytes, slot_nbytes, stages_of, streamed_nbytes
from bascule.tasks.sampler import GREEDY
from bascule.weights.source import FileSource
from tests import speech_folders
from tests.goldens import TINY_BERT, t5, vision
from tests.goldens.llama import tiny
from tests.tasks.test_quantize import widened
from tests.weights.faulty import FaultyServer

TIERS = ["webgpu", "wasm", "cpu"]
TEXTS = ["w4 w5", "w6 " * 40, "w7"]
FILE = "model.safetensors"
LLAMA = tiny("tiny-q4_1").path


def same_memory(now: Mapping[str, int], before: Mapping[str, int]) -> None:
    """Assert that nothing more is held, but for the buffers of stages' ends.

    A pass reads 4 bytes at the end of each stage; whether two such reads ever wait at once, and so
    have a buffer each, is a matter of how fast the device is.
    """
    now, before = dict(now), dict(before)
    more = now.pop("staging", 0) - before.pop("staging", 0)
    assert more in range(0, 4 * N_SLOTS, 4)
    assert now == before


async def embed(model: Any) -> Any:
    return await model.embed(TEXTS)


async def generate(model: Any) -> Any:
    logits = await model.logits([1, 5, 9, 2])
    ids = (await model.generate([1, 5, 9], max_new_tokens=5, sampling=GREEDY)).ids
    return [*ids, *np.ravel(logits)]


async def transcribe(model: Any) -> Any:
    said = await model.transcribe(np.sin(np.arange(16000) / 9).astype(np.float32))
    return np.asarray([len(said.text), *map(ord, said.text)])


async def translate(model: Any) -> Any:
    return (await model.generate("a b", max_new_tokens=4)).ids


async def classify(model: Any) -> Any:
    picture = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    return list((await model.classify(picture, top_k=3))[0].probabilities.values())


MODELS: dict[str, tuple[Callable[[Path], Path], Callable[[Any], Any]]] = {
    "encoder": (lambda folder: widened(folder, layers=6), embed),
    "shards": (lambda folder: widened(folder, layers=2, shards=2, dtype=np.float16), embed),
    "language": (lambda _: LLAMA, generate),
    "speech": (lambda folder: speech_folders.ctranslate2(folder), transcribe),
    "text-to-text": (lambda folder: t5.build("t5", folder), translate),
    "pictures": (vision.build_vit, classify),
}


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize("kind", MODELS)
async def test_answers_are_those_of_resident_weights(tmp_path: Path, kind: str, tier: str) -> None:
    build, work = MODELS[kind]
    folder = build(tmp_path / "model")
    answers: dict[bool, Any] = {}
    weights: dict[bool, int] = {}
    for streamed in (False, True):
        async with await bascule.open_device(tier) as device:
            model = await device.load(folder, stream_weights=streamed)
            answers[streamed] = np.asarray(await work(model), np.float64)
            weights[streamed] = device.memory().by_kind.get("weights", 0)
            whole = model.weights.nbytes
            model.close()
            assert device.memory().by_kind.get("weights", 0) == 0
    np.testing.assert_allclose(answers[True], answers[False], atol=1e-5)
    print(f"{kind} on {tier}: {weights[True]:,} of {weights[False]:,} bytes")
    assert weights[False] - weights[True] > 0.3 * whole  # a front end of audio stays


def test_stages_cover_all_calls_and_fit_their_slots() -> None:
    programs = asyncio.run(read_programs(LLAMA))
    part = part_nbytes(programs)
    fitting, fitted = fit_all(programs, Limits(part_nbytes=part))
    assert {applied.strategy for applied in fitting.applied} == {
        "chunked_embedding",
        "layer_decomposition",
    }
    maximum = slot_nbytes(fitted)
    for program in fitted:
        assert max(p.nbytes for p in program.parameters if p.computed is None) <= part
        stages = stages_of(program, maximum)
        assert [stage.first for stage in stages] == [0, *(stage.end for stage in stages[:-1])]
        assert stages[-1].end == len(program.calls)
        nbytes = streamed_nbytes(program.parameters)
        for stage in stages:
            calls = program.calls[stage.first : stage.end]
            read = {o.name for call in calls for o in call.operands if o is not None}
            assert read & nbytes.keys() == stage.offsets.keys()
            spans = sorted((at, at + nbytes[name]) for name, at in stage.offsets.items())
            assert all(end <= start for (_, end), (start, _) in pairwise(spans))
            assert not spans or spans[-1][1] <= maximum
    with pytest.raises(LimitError, match="a slot of streamed weights has 256"):
        stages_of(fitted[0], 256)


@pytest.mark.parametrize("tier", TIERS)
async def test_a_file_that_goes_away_or_changes_between_passes(tmp_path: Path, tier: str) -> None:
    folder = widened(tmp_path / "model", layers=1)
    file, away = folder / FILE, tmp_path / "away"
    async with await bascule.load(folder, tier=tier, stream_weights=True) as model:
        expected = await model.embed(TEXTS)
        held = model.backend.memory.by_kind
        file.rename(away)
        with pytest.raises(FileMissingError, match=r"model\.safetensors"):
            await model.embed(TEXTS)
        away.rename(file)
        assert np.array_equal(await model.embed(TEXTS), expected)
        os.utime(file, ns=(1, 1))
        with pytest.raises(FileChangedError, match="since the model was loaded"):
            await model.embed(TEXTS)
        same_memory(model.backend.memory.by_kind, held)


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_a_language_model_continues_after_its_file_was_away(
    tmp_path: Path, tier: str
) -> None:
    file, away = tmp_path / "model.gguf", tmp_path / "away"
    shutil.copy(LLAMA, file)
    options: Any = {"max_new_tokens": 8, "sampling": GREEDY}
    async with await bascule.load(file, tier=tier, stream_weights=True) as model:
        expected = (await model.generate([1, 5, 9], **options)).ids

        async def lose_the_file_after_a_token() -> None:
            async for _ in model.stream([1, 5, 9], **options):
                if file.exists():
                    file.rename(away)

        with pytest.raises(FileMissingError):
            await lose_the_file_after_a_token()
        away.rename(file)
        assert (await model.generate([1, 5, 9], **options)).ids == expected


@pytest.mark.parametrize("tier", TIERS)
async def test_cancelled_and_closed_in_the_middle_of_a_pass(
    tmp_path: Path, tier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = widened(tmp_path / "model", layers=2)
    reached, plain = asyncio.Event(), FileSource.reread
    n_reads = 0

    async def reread(self: FileSource, *rest: Any) -> None:
        nonlocal n_reads
        n_reads += 1
        if n_reads == 3:
            reached.set()
            await asyncio.sleep(0.05)
        await plain(self, *rest)

    async with await bascule.open_device(tier) as device:
        device.backend.trim()
        before = device.memory().by_kind
        model = await device.load(folder, stream_weights=True)
        expected = await model.embed(TEXTS)
        held = device.memory().by_kind
        monkeypatch.setattr(FileSource, "reread", reread)
        task = asyncio.ensure_future(model.embed(TEXTS))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert np.array_equal(await model.embed(TEXTS), expected)
        same_memory(device.memory().by_kind, held)
        n_reads = 0
        reached.clear()
        task = asyncio.ensure_future(model.embed(TEXTS))
        await reached.wait()
        model.close()
        with pytest.raises(DeviceLostError, match="closed while it worked"):
            await task
        device.backend.trim()
        assert device.memory().by_kind == before


async def test_passes_read_from_the_cache_and_never_from_the_network(
    tmp_path: Path, weights_home: Path
) -> None:
    folder = widened(tmp_path / "model", layers=1)
    with FaultyServer(folder) as server:
        options: Any = {"stream_weights": True, "chunk_size_mb": 1 / 16}
        async with await bascule.load(server.url, tier="cpu", **options) as model:
            assert server.count(FILE) > 0
            server.down()
            server.reset_counts()
            result = await model.embed(TEXTS)
            async with await bascule.load(folder, tier="cpu") as local:
                assert np.array_equal(result, await local.embed(TEXTS))
            chunks = [path for path in weights_home.rglob("*") if path.stat().st_size == 1 << 16]
            assert chunks
            for path in chunks:
                path.unlink()
            server.up()
            with pytest.raises(SourceError, match="no longer in the cache"):
                await model.embed(TEXTS)
            assert server.requests == []


async def test_a_lost_device_is_opened_again_with_streamed_weights(tmp_path: Path) -> None:
    folder = widened(tmp_path / "model", layers=1)
    async with await bascule.load(folder, tier="webgpu", stream_weights=True) as model:
        expected = await model.embed(TEXTS)
        backend: Any = model.backend
        backend.gpu._device.destroy()
        assert np.array_equal(await model.embed(TEXTS), expected)
        assert model.backend is not backend
        assert model.backend.memory.by_kind["weights"] < 0.7 * model.weights.nbytes


async def test_what_cannot_be_streamed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="weights as the files have them"):
        await bascule.load(TINY_BERT, tier="cpu", stream_weights=True, quantize=8)
    programs = await read_programs(TINY_BERT)
    need = need_of("tiny", programs, streamed=True)
    assert need.unable["webnn"] == NO_STREAMING
    assert need.total_nbytes < need_of("tiny", programs).total_nbytes
    backend = WebNnBackend(type("Ml", (), {"name": "none"}))  # type: ignore[arg-type]
    with pytest.raises(TierUnavailableError, match="its graph holds all weights"):
        backend.streamed_store((), 1)
    device = await bascule.open_device("webgpu")
    async with device, await device.load(TINY_BERT, stream_weights=True) as model:
        debugger = bascule.WebGPUDebugger(model)
        stay = "weights that stay on the device"
        with debugger.capture_shader_trace(), pytest.raises(InputError, match=stay):
            await model.embed(TEXTS)
