"""Loaders: progress, cancel and resume, components and shards, and results before the last byte."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule.base.folders import models_folder
from bascule.errors import BasculeError, InputError, ModelFileError, SourceError
from tests.goldens import TINY_BERT, cosines, golden
from tests.weights.faulty import Fault, FaultyServer

FILE = "model.safetensors"
MINILM = models_folder() / "all-MiniLM-L6-v2"


def shard(folder: Path, count: int) -> None:
    """Split a model's file as transformers does."""
    tensors = load_file(folder / FILE)
    (folder / FILE).unlink()
    names = sorted(tensors)
    files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    where = {name: files[i % count] for i, name in enumerate(names)}
    for file in files:
        save_file({n: tensors[n] for n in names if where[n] == file}, folder / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@pytest.fixture
def models(tmp_path: Path) -> Path:
    for name in ("whole", "shards", "dual/question", "dual/answer"):
        shutil.copytree(TINY_BERT, tmp_path / name)
    shard(tmp_path / "shards", 3)
    tensors = load_file(tmp_path / "dual" / "answer" / FILE)
    tensors["encoder.layer.1.output.dense.bias"][0] += 2
    save_file(tensors, tmp_path / "dual" / "answer" / FILE)
    return tmp_path


@pytest.fixture
def server(models: Path) -> Iterator[FaultyServer]:
    with FaultyServer(models) as result:
        yield result


async def assert_golden(model: bascule.EmbeddingModel) -> None:
    result = await model.embed(golden("tiny-bert").texts)
    assert (cosines(result, golden("tiny-bert").embeddings) >= 0.99999).all()


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("place", ["folder", "server"])
async def test_shards_make_the_same_model(
    models: Path, server: FaultyServer, place: str, parallel: bool
) -> None:
    where = models / "shards" if place == "folder" else f"{server.url}/shards"
    messages: list[float] = []
    loader = bascule.ProgressiveModelLoader(where, parallel, tier="cpu")
    loader.register_progress_callback(messages.append)
    async with await loader.load_model() as model:
        await assert_golden(model)
    assert messages == sorted(messages)
    assert messages[-1] == 100


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("{", "not JSON"),
        ('{"weight_map": []}', "no weight_map"),
        ('{"weight_map": {"a": "../../etc/passwd"}}', "not a shard's name"),
        ('{"weight_map": {"a": "model-00001-of-00002.bin"}}', "expected one of"),
        ('{"weight_map": {"a": "model-00001-of-00003.safetensors"}}', "has 'a', and it has not"),
    ],
)
async def test_hostile_indices_are_refused(models: Path, index: str, told: str) -> None:
    (models / "shards" / "model.safetensors.index.json").write_text(index)
    with pytest.raises(BasculeError, match=told):
        await bascule.load(models / "shards", tier="cpu")


async def test_cancel_keeps_what_has_come(server: FaultyServer) -> None:
    shutil.copytree(MINILM, server._folder / "minilm")
    loader = bascule.ProgressiveModelLoader(f"{server.url}/minilm", chunk_size_mb=1, tier="cpu")

    def stop(percent: float) -> None:
        if percent > 50:
            loader.cancel()

    loader.register_progress_callback(stop)
    with pytest.raises(asyncio.CancelledError):
        await loader.load_model()
    server.reset_counts()
    again = bascule.ProgressiveModelLoader(f"{server.url}/minilm", chunk_size_mb=1, tier="cpu")
    async with await again.load_model() as model:
        expected = golden("minilm")
        result = await model.embed(expected.texts[:3])
        assert (cosines(result, expected.embeddings[:3]) >= 0.99999).all()
        assert model.stats["network_nbytes"] < 0.5 * (MINILM / FILE).stat().st_size


async def test_90_mb_over_a_connection_that_drops_20_times(
    server: FaultyServer, rng: np.random.Generator
) -> None:
    shutil.copytree(MINILM, server._folder / "minilm")
    size = (MINILM / FILE).stat().st_size
    for after in rng.integers(1, size // 12, 20):
        server.plan(FILE, Fault("drop", 4 << 20, after=int(after)), times=1)
    async with await bascule.load(f"{server.url}/minilm", tier="cpu") as model:
        expected = golden("minilm")
        result = await model.embed(expected.texts[:3])
        assert (cosines(result, expected.embeddings[:3]) >= 0.99999).all()
        assert model.stats["network_retries"] > 10
    sent = server.sent[f"/minilm/{FILE}"]
    print(f"{server.count(FILE)} requests, {sent / size:.2f} of the file sent")
    assert sent <= size + 20 * (4 << 20)


async def test_one_load_at_a_time(models: Path) -> None:
    loader = bascule.ProgressiveModelLoader(models / "whole", tier="cpu")
    first = asyncio.ensure_future(loader.load_model())
    await asyncio.sleep(0)
    with pytest.raises(InputError, match="one load at a time"):
        await loader.load_model()
    (await first).close()


async def test_components_load_at_the_same_time(server: FaultyServer) -> None:
    messages: list[tuple[str, float, float]] = []
    loader = bascule.ParallelMultimodalLoader(
        f"{server.url}/dual", components=["question", "answer"], tier="webgpu"
    )
    loader.register_progress_callback(lambda *each: messages.append(each))
    async with await loader.load_parallel() as model:
        assert set(model) == {"question", "answer"}
        await assert_golden(model["question"])
        a, b = [await part.embed(["w4 w5"]) for part in model.values()]
        assert not np.allclose(a, b)
    assert {name for name, _, _ in messages} == {"question", "answer"}
    assert messages[-1][1:] == (100, 100)
    wholes = [whole for _, _, whole in messages]
    assert wholes == sorted(wholes)


async def test_one_bad_component_stops_all(server: FaultyServer) -> None:
    server.plan(f"answer/{FILE}", Fault("status", status=403))
    loader = bascule.ParallelMultimodalLoader(
        f"{server.url}/dual", components=["question", "answer"], tier="cpu"
    )
    with pytest.raises(SourceError, match="403"):
        await loader.load_parallel()


@pytest.mark.parametrize("components", [[], ["a", "a"], ["../x"], ["a/b"], [""], ["."]])
def test_components_that_are_no_names(components: list[str]) -> None:
    with pytest.raises(InputError):
        bascule.ParallelMultimodalLoader("m", components)


@pytest.mark.parametrize("chunk", [0, -1, 0.01, 65])
async def test_chunk_sizes_that_make_no_sense(models: Path, chunk: float) -> None:
    with pytest.raises(InputError, match="chunk size"):
        await bascule.ProgressiveModelLoader(models / "whole", chunk_size_mb=chunk).load_model()


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
async def test_results_come_before_the_last_byte(server: FaultyServer, tier: str) -> None:
    """The first layers run while the last ones still load; printed, and the same numbers."""
    shutil.copytree(MINILM, server._folder / "minilm")
    server.plan(FILE, Fault("slow", 1_000_000, bytes_per_second=30_000_000))
    stages: list[float] = []
    began = perf_counter()
    model = await bascule.load(f"{server.url}/minilm", tier=tier, wait=False)
    async with model:
        arrivals = model.weights.arrivals
        assert arrivals is not None
        assert not arrivals.complete
        waiting = arrivals.wait

        async def noted(names: object) -> None:
            await waiting(names)  # type: ignore[arg-type]
            stages.append(perf_counter() - began)

        arrivals.wait = noted  # type: ignore[method-assign]
        expected = golden("minilm")
        embedding = asyncio.ensure_future(model.embed(expected.texts[:1]))
        await model.loaded()
        last_byte = perf_counter() - began
        result = await embedding
        print(
            f"{tier}: first layer ran after {stages[0]:.2f} s, last byte came after "
            f"{last_byte:.2f} s, first result after {perf_counter() - began:.2f} s"
        )
        assert (cosines(result, expected.embeddings[:1]) >= 0.99999).all()
        assert len([at for at in stages if at < last_byte]) > 10
        again = await model.embed(expected.texts[:5])
        assert (cosines(again, expected.embeddings[:5]) >= 0.99999).all()


async def test_a_load_that_fails_later_is_told_to_who_waits(server: FaultyServer) -> None:
    # The first chunk comes: it has the header, which load() reads before it returns.
    server.plan(f"whole/{FILE}", Fault("slow", bytes_per_second=100_000_000), times=1)
    server.plan(f"whole/{FILE}", Fault("status", status=403))
    model = await bascule.load(f"{server.url}/whole", tier="cpu", wait=False, chunk_size_mb=1 / 16)
    async with model:
        with pytest.raises(SourceError, match="403"):
            await model.embed(["w4"])
        with pytest.raises(SourceError, match="403"):
            await model.loaded()


async def test_a_local_manifest_is_held_to(models: Path) -> None:
    from bascule.weights.manifest import write_manifest

    await write_manifest(models / "whole", 0.0625, lambda _: None)
    async with await bascule.load(models / "whole", tier="cpu") as model:
        await assert_golden(model)
    data = bytearray((models / "whole" / FILE).read_bytes())
    data[-5] ^= 1
    (models / "whole" / FILE).write_bytes(data)
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(ModelFileError, match="not that of the manifest"),
    ):
        await bascule.load(models / "whole", tier="cpu")
