"""NaN, refused commands and memory that ends in a run: a clear error or the right answer, and the
next run works.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import EmbeddingModel, LanguageModel, Sampling
from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.compat.error_policy import FallbackStrategy
from bascule.errors import (
    BasculeError,
    GpuError,
    GpuOutOfMemoryError,
    HostMemoryError,
    NotFiniteError,
)
from bascule.program.program import Parameter
from bascule.tasks.loaded import LoadedModel
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.llama import tiny
from tests.scarce import device_memory
from tests.stores import in_memory

TINY_K = tiny("tiny-k")
PROMPT = TINY_K.chats[0].prompt_ids
TIERS = ("webgpu", "wasm", "cpu")
LONG = [*PROMPT, *range(10, 100), *range(10, 100)]
TEXTS = [f"w{n} w{n + 1}" for n in range(1, 33)]


def gpu_of(model: LoadedModel) -> NativeGpu:
    backend: Any = model._backend
    assert isinstance(backend, WebGpuBackend)
    assert isinstance(backend.gpu, NativeGpu)
    return backend.gpu


@asynccontextmanager
async def model_and(path: Any, tier: str, parameter: str) -> AsyncIterator[tuple[Any, bytes, int]]:
    """A model, and the bytes and target of one of its parameters."""
    (result,) = {p for p in await parameters_of(path) if p.name == parameter}
    async with await bascule.load(path, tier=tier) as model:
        target = model.weights.targets[parameter]
        yield model, await weights_of(model, result), target


async def parameters_of(path: Any) -> tuple[Parameter, ...]:
    from bascule.device.loading import read_programs

    return (await read_programs(path))[0].parameters


async def weights_of(model: LoadedModel, parameter: Parameter) -> bytes:
    if model.tier == "webgpu":
        into = bytearray(parameter.nbytes)
        await gpu_of(model).read(model.weights.targets[parameter.name], 0, into)
        return bytes(into)
    stored = in_memory(model.weights)
    assert stored is not None
    return bytes(stored[parameter.name])


@pytest.mark.parametrize("tier", TIERS)
async def test_no_embedding_is_nan(tier: str) -> None:
    expected = golden("tiny-bert")
    name = "encoder.layer.0.qkv.weight"
    async with model_and(TINY_BERT, tier, name) as (model, sound, target):
        embedder: EmbeddingModel = model
        before = await embedder.embed(expected.texts)
        for poison in (np.nan, np.inf):
            embedder.weights.write(target, 64, np.full(4, poison, np.float32))
            with pytest.raises(NotFiniteError, match="embedding of text") as met:
                await embedder.embed(expected.texts)
            assert (met.value.tier, met.value.category) == (tier, "not-finite")
            assert "Load the model again" in met.value.hint
        embedder.weights.write(target, 0, sound)
        assert np.array_equal(await embedder.embed(expected.texts), before)


@pytest.mark.parametrize("tier", TIERS)
@pytest.mark.parametrize(
    "sampling",
    [GREEDY, Sampling(seed=3), Sampling(seed=3, repetition_penalty=1.2)],
    ids=["greedy", "drawn", "penalised"],
)
async def test_no_token_comes_from_nan(tier: str, sampling: Sampling) -> None:
    async with model_and(TINY_K.path, tier, "blk.0.attn_norm.weight") as (model, sound, target):
        language: LanguageModel = model
        whole = await language.generate(PROMPT, sampling=sampling, max_new_tokens=24)
        stream = language.stream(PROMPT, sampling=sampling, max_new_tokens=24)

        async def read_and_poison() -> None:
            async for _ in stream:
                if len(stream.result.ids) == 5:
                    language.weights.write(target, 16, np.full(1, np.nan, np.float32))

        with pytest.raises(NotFiniteError, match="logit after token") as met:
            await asyncio.wait_for(read_and_poison(), 60)
        given = stream.result.ids
        assert 5 <= len(given) < 24
        assert given == whole.ids[: len(given)]
        assert (met.value.tier, met.value.model) == (tier, str(TINY_K.path))
        with pytest.raises(NotFiniteError):
            await language.generate(PROMPT, sampling=sampling)
        language.weights.write(target, 0, sound)
        again = await language.generate(PROMPT, sampling=sampling, max_new_tokens=24)
        assert again.ids == whole.ids


@pytest.mark.parametrize("tier", TIERS)
async def test_a_broken_cache_is_not_used_again(tier: str) -> None:
    async with await bascule.load(TINY_K.path, tier=tier) as model:
        language: LanguageModel = model
        whole = await language.generate(PROMPT, sampling=GREEDY, max_new_tokens=8)
        states = language._cache.states
        states.write("cache.0", 0, np.full(64, np.nan, np.float16))
        with pytest.raises(NotFiniteError):
            await language.generate([*PROMPT, *whole.ids], sampling=GREEDY, max_new_tokens=8)
        again = await language.generate(PROMPT, sampling=GREEDY, max_new_tokens=8)
        assert again.ids == whole.ids
        assert again.stats["reused_tokens"] == 0


@pytest.mark.parametrize("tier", TIERS)
async def test_no_logit_is_nan(tier: str) -> None:
    async with model_and(TINY_K.path, tier, "blk.0.attn_norm.weight") as (model, sound, target):
        expected = await model.logits(TINY_K.ids)
        model.weights.write(target, 16, np.full(1, np.nan, np.float32))
        with pytest.raises(NotFiniteError, match="logit of tokens 0"):
            await model.logits(TINY_K.ids)
        model.weights.write(target, 0, sound)
        assert np.array_equal(await model.logits(TINY_K.ids), expected)


async def test_a_refused_command_in_an_embedding_is_told() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        expected = await model.embed("w4 w5")
        gpu, prepared = gpu_of(model), next(iter(model._prepared.values()))
        freed = prepared.executable._buffers[prepared.program.outputs[0].name]
        gpu.free(freed)
        with pytest.raises(GpuError, match="freed") as met:
            await asyncio.wait_for(model.embed("w4 w5"), 10)
        assert met.value.label.endswith(".wgsl")
        assert met.value.label in str(met.value)
        # The program is what is broken: another one is right.
        prepared.executable._owned.remove(freed)
        model.trim()
        assert np.array_equal(await model.embed("w4 w5"), expected)


async def test_embeddings_by_smaller_batches() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        weights = gpu_of(model).allocated_nbytes
        await model.embed(TEXTS[:1])
        one = gpu_of(model).allocated_nbytes
        expected = await model.embed(TEXTS)
        whole = gpu_of(model).allocated_nbytes
        assert model.trim() >= whole - weights - 4
        with device_memory(gpu_of(model), one + (whole - one) // 2) as refused:
            result = await model.embed(TEXTS)
            assert refused
        assert cosines(result, expected).min() > 0.99999
        assert model.stats["memory_retries"] >= 1
        assert np.array_equal(await model.embed(TEXTS), expected)


async def test_memory_for_not_even_one_text() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        expected = await model.embed(TEXTS)
        model.trim()
        held = gpu_of(model).allocated_nbytes
        with (
            device_memory(gpu_of(model), held + 1000),
            pytest.raises(GpuOutOfMemoryError, match="out of memory") as met,
        ):
            await model.embed(TEXTS)
        assert met.value.nbytes
        assert "tier=" in met.value.hint
        assert gpu_of(model).allocated_nbytes == held
        assert np.array_equal(await model.embed(TEXTS), expected)


async def test_a_prompt_by_smaller_chunks() -> None:
    async with await bascule.load(TINY_K.path, tier="webgpu") as model:
        whole = await model.generate(LONG, sampling=GREEDY, max_new_tokens=8)
        gpu = gpu_of(model)
        before = gpu.allocated_nbytes
        freed = model.trim()
        assert freed == before - gpu.allocated_nbytes > 0
        await model.generate(LONG, sampling=GREEDY, max_new_tokens=8)
        needed = gpu.allocated_nbytes
        model.trim()
        # All that one token and 16 need, and not the 64 of a whole chunk.
        with device_memory(gpu, needed - 60_000) as refused:
            result = await model.generate(LONG, sampling=GREEDY, max_new_tokens=8)
        assert refused
        assert result.ids == whole.ids
        assert model.stats["memory_retries"] >= 1
        again = await model.generate(LONG, sampling=GREEDY, max_new_tokens=8)
        assert again.ids == whole.ids


async def test_memory_for_no_text_at_all() -> None:
    async with await bascule.load(TINY_K.path, tier="webgpu") as model:
        whole = await model.generate(PROMPT, sampling=GREEDY, max_new_tokens=4)
        gpu = gpu_of(model)
        model.trim()
        with device_memory(gpu, gpu.allocated_nbytes + 1000), pytest.raises(GpuOutOfMemoryError):
            await asyncio.wait_for(model.generate(PROMPT, sampling=GREEDY), 60)
        again = await model.generate(PROMPT, sampling=GREEDY, max_new_tokens=4)
        assert again.ids == whole.ids


async def test_a_text_goes_on_after_memory_has_ended_in_it() -> None:
    async with await bascule.load(TINY_K.path, tier="webgpu") as model:
        ids = [1 + n % 90 for n in range(230)]  # the page ends in the middle of the new tokens
        options: dict[str, Any] = {"sampling": GREEDY, "max_new_tokens": 40, "overflow": "slide"}
        whole = await model.generate(ids, **options)
        model.trim()
        with starving(gpu_of(model)) as starve:
            async with model.stream(ids, **options) as stream:
                async for _ in stream:
                    if len(stream.result.ids) == 2:
                        starve()
        assert stream.result.ids == whole.ids
        assert model.stats["memory_retries"] == 1


@contextmanager
def starving(gpu: NativeGpu) -> Iterator[Any]:
    """From the call on, one allocation fails as if memory had ended for a moment."""
    budget = [1 << 40]
    with device_memory(gpu, 0) as refused:
        device: Any = gpu._device
        failing = device.create_buffer
        real = type(device).create_buffer

        def create_buffer(*, size: int, usage: str) -> Any:
            if budget and budget[0] == 0:
                budget.clear()
                return failing(size=size, usage=usage)
            return real(device, size=size, usage=usage)

        device.create_buffer = create_buffer

        def starve() -> None:
            budget[0] = 0

        yield starve
        assert len(refused) == 1


@pytest.mark.parametrize("path", [TINY_BERT, TINY_K.path], ids=["bert", "llama"])
async def test_memory_that_ends_in_a_load(path: Any) -> None:
    opened = await bascule.open_device("webgpu")
    backend: Any = opened.backend
    gpu: NativeGpu = backend.gpu
    held, objects = gpu.allocated_nbytes, gpu.n_objects
    nbytes = sum(p.nbytes for p in await parameters_of(path))
    for budget in (nbytes // 2, nbytes + 2000):  # in the weights, in what comes after them
        with device_memory(gpu, held + budget), pytest.raises(GpuOutOfMemoryError):
            await opened.load(path)
        assert (gpu.allocated_nbytes, gpu.n_objects) == (held, objects)
    async with await opened.load(path) as model:
        assert model.stats["gpu_nbytes"] > nbytes
    opened.close()


async def test_the_heap_that_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_room(*_: object, **__: object) -> Any:
        raise MemoryError

    async with await bascule.load(TINY_BERT, tier="cpu") as model:
        expected = await model.embed(TEXTS)
        table: Any = FUNCTIONS
        monkeypatch.setitem(table, "attention", no_room)
        model.trim()
        with pytest.raises(HostMemoryError, match="intermediate values") as met:
            await model.embed(TEXTS)
        assert isinstance(met.value, BasculeError)
        monkeypatch.undo()
        model.trim()
        assert cosines(await model.embed(TEXTS), expected).min() > 0.99999


async def test_recovery_frees_what_models_keep() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        await model.embed(TEXTS)
        manager = bascule.RecoveryManager(FallbackStrategy(retry_delay=0.001))
        manager.on_memory_pressure(model.trim)
        held = [gpu_of(model).allocated_nbytes]
        fails = [GpuOutOfMemoryError("alloc", 1 << 20)]

        async def operation(_: bascule.Attempt) -> Any:
            held.append(gpu_of(model).allocated_nbytes)
            if fails:
                raise fails.pop()
            return await model.embed(TEXTS[:2])

        assert len(await manager.execute_with_recovery("embed", operation)) == 2
        stats = manager.error_recovery.get_recovery_stats()
        assert stats.freed_nbytes == held[1] - held[2] > 0
        assert stats.recovered == 1
