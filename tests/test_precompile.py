"""Compiling ahead: for a kind of model, for one model; from plain code and where a loop runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import bascule
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.base.remembered import open_remembered
from bascule.compat.precompile import ModelSpecificPrecompiler, Precompiled, ShaderPrecompiler
from bascule.errors import InputError, ModelNotFoundError
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.image_text import build_clip
from tests.goldens.vision import build_vit
from tests.speech_folders import hugging_face as build_whisper


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("BASCULE_REMEMBERED", str(tmp_path / "remembered"))
    # Shaders are what is told of here, also where this machine would rather do without a GPU.
    monkeypatch.setenv("BASCULE_FORCE_WEBGPU", "1")


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shader files that the device is asked to compile, in order."""
    labels: list[str] = []
    real = NativeGpu.pipeline

    async def pipeline(
        self: NativeGpu, wgsl: str, constants: Mapping[str, float], bindings: str, label: str
    ) -> int:
        labels.append(label)
        return await real(self, wgsl, constants, bindings, label)

    monkeypatch.setattr(NativeGpu, "pipeline", pipeline)
    return labels


def as_task(found: Any) -> asyncio.Task[Any]:
    """What a precompiler gives where a loop runs."""
    assert isinstance(found, asyncio.Task)
    return found


def done(found: Any) -> Precompiled:
    assert isinstance(found, Precompiled)
    return found


def test_the_seed_without_a_loop_works_to_the_end(compiled: list[str]) -> None:
    precompiler = bascule.ShaderPrecompiler(model_type="text", cache_to_indexeddb=True)
    attention = done(precompiler.precompile_operation("attention"))
    assert attention.operations == ("attention",)
    assert attention.pipelines == 1
    assert compiled == ["add.wgsl", "attention_lane.wgsl"]  # the first is the tier's own probe
    essential = done(precompiler.precompile_essential_shaders())
    assert essential.tier == "webgpu"
    assert essential.pipelines == 8
    assert set(essential.operations) == {
        "embedding", "layer_norm", "linear", "attention", "pool", "l2_normalise",
    }  # fmt: skip
    before = list(compiled)
    assert len(before) == 1 + 8
    done(precompiler.precompile_operation("layer_norm"))
    assert compiled == before
    precompiler.close()


async def test_where_a_loop_runs_the_work_has_begun_before_it_is_awaited(
    compiled: list[str],
) -> None:
    precompiler = ShaderPrecompiler()
    messages: list[float] = []
    begun = asyncio.Event()

    def notify(progress: bascule.Progress) -> None:
        messages.append(progress.fraction)
        begun.set()

    task = precompiler.precompile_essential_shaders(notify)
    other = precompiler.precompile_operation("linear")
    assert isinstance(task, asyncio.Task)
    await begun.wait()  # nobody has awaited the task yet
    assert compiled
    assert done(await task).pipelines == 8
    assert done(await other).pipelines == 2
    assert compiled.count("add.wgsl") == 1  # one device for both
    assert messages == sorted(messages)
    assert messages[-1] == 1
    # A model of the kind finds all of it there, but for what its own sizes change.
    before = len(compiled)
    model = await (await precompiler.device()).load(TINY_BERT)
    again = set(compiled[before:])
    assert again <= {"linear_any.wgsl", "attention_lane.wgsl"}
    model.close()
    precompiler.close()


@pytest.mark.parametrize("model_type", ["vision", "multimodal", "audio"])
async def test_a_model_of_a_kind_finds_its_shaders(
    model_type: str, compiled: list[str], tmp_path: Path
) -> None:
    build = {"vision": build_vit, "multimodal": build_clip, "audio": build_whisper}[model_type]
    precompiler = ShaderPrecompiler(model_type, cache_to_indexeddb=True)
    essential = done(await as_task(precompiler.precompile_essential_shaders()))
    assert essential.tier == "webgpu"
    assert len(compiled) == essential.pipelines > 10
    for operation in ("attention", "layer_norm"):
        result = done(await as_task(precompiler.precompile_operation(operation)))
        assert result.operations == (operation,)
        assert result.pipelines > 0
    before = len(compiled)
    assert before == essential.pipelines
    model = await (await precompiler.device()).load(build(tmp_path / "m"))
    assert len(compiled[before:]) < essential.pipelines / 2  # what its own sizes change
    model.close()
    precompiler.close()


async def test_the_first_layers_come_first(compiled: list[str]) -> None:
    precompiler = ModelSpecificPrecompiler(str(TINY_BERT))
    await precompiler.precompile_all()  # type: ignore[misc]
    order = [label for label in dict.fromkeys(compiled) if label != "add.wgsl"]
    assert order[0] == "embedding.wgsl"
    assert order.index("embedding.wgsl") < order.index("attention_lane.wgsl")
    assert order.index("attention_lane.wgsl") < order.index("pool.wgsl")
    assert order[-1] == "l2_normalise.wgsl"
    precompiler.close()


def test_a_models_seed(compiled: list[str]) -> None:
    """As written there: without await first, then in a loop."""
    precompiler = bascule.ModelSpecificPrecompiler(
        model_name=str(TINY_BERT), model_type="text", cache_results=True
    )
    messages: list[tuple[str, float]] = []
    precompiler.on_progress(lambda stage, percent: messages.append((stage, percent)))
    found = done(precompiler.precompile_all())
    assert found.pipelines == 8
    assert messages[-1] == ("pipelines", 100.0)
    before = len(compiled)

    async def rest() -> None:
        expected = golden("tiny-bert")
        model = await precompiler.get_model_with_precompiled_shaders()
        assert isinstance(model, bascule.UnifiedWebPlatform)
        result: Any = await model.run_inference({"input_text": expected.texts})  # type: ignore[misc]
        assert (cosines(result["embeddings"], expected.embeddings) >= 0.99999).all()
        assert ("weights", 100.0) in messages
        model.close()

    asyncio.run(rest())
    assert compiled[before:] == []
    precompiler.close()


async def test_what_was_compiled_is_listed_for_the_next_visit() -> None:
    precompiler = ModelSpecificPrecompiler(str(TINY_BERT))
    opened = (await asyncio.gather(precompiler.precompile_all(), precompiler.precompile_all()))[0]
    adapter: Any = (await precompiler._device.get()).backend
    from bascule.backend.webgpu.choices import machine_key

    machine = machine_key(adapter.gpu.adapter)
    store = await open_remembered()
    names = (await store.get(f"models {machine}") or {})["names"]
    listed = (await store.get(f"pipelines {machine} {names[str(TINY_BERT)]}") or {})["pipelines"]
    assert len(listed) == opened.pipelines
    for one in listed:
        assert one["outcome"] == "made"
        assert one["compile_ms"] > 0
        await adapter.gpu.pipeline(one["wgsl"], one["constants"], one["bindings"], one["label"])
    request = await store.get("request") or {}
    assert request["version"] == bascule.__version__
    assert "maxBufferSize" in request["limits"]
    precompiler.close()


async def test_without_the_cache_nothing_is_kept(tmp_path: Any) -> None:
    for precompiler in (
        ShaderPrecompiler(cache_to_indexeddb=False),
        ModelSpecificPrecompiler(str(TINY_BERT), cache_results=False),
    ):
        work: Any = (
            precompiler.precompile_essential_shaders()
            if isinstance(precompiler, ShaderPrecompiler)
            else precompiler.precompile_all()
        )
        assert (await work).pipelines == 8
        precompiler.close()
    assert not (tmp_path / "remembered").exists()


async def test_a_tier_without_shaders_says_so() -> None:
    precompiler = ShaderPrecompiler(platform="cpu")
    result = await precompiler.precompile_essential_shaders()  # type: ignore[misc]
    assert (result.pipelines, result.tier, result.reason) == (0, "cpu", "cpu was asked for")


async def test_auto_takes_a_tier_that_has_shaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this machine would run a model faster without them."""
    monkeypatch.delenv("BASCULE_FORCE_WEBGPU")
    for precompiler in (ShaderPrecompiler(), ModelSpecificPrecompiler(str(TINY_BERT))):
        work: Any = (
            precompiler.precompile_essential_shaders()
            if isinstance(precompiler, ShaderPrecompiler)
            else precompiler.precompile_all()
        )
        result = await work
        assert (result.pipelines, result.tier) == (8, "webgpu")
        precompiler.close()


async def test_auto_heeds_the_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BASCULE_FORCE_WEBGPU")
    monkeypatch.setenv("BASCULE_DISABLE_WEBGPU", "1")
    limited = ShaderPrecompiler()
    result = await limited.precompile_operation("attention")  # type: ignore[misc]
    assert (result.pipelines, result.tier) == (1, "webgpu-limited")
    limited.close()
    monkeypatch.delenv("BASCULE_DISABLE_WEBGPU")
    monkeypatch.setenv("BASCULE_FORCE_CPU", "1")
    without = ShaderPrecompiler()
    result = await without.precompile_operation("attention")  # type: ignore[misc]
    assert (result.pipelines, result.tier) == (0, "cpu")
    assert "BASCULE_FORCE_CPU" in result.reason
    without.close()


def test_kinds_are_checked_by_name() -> None:
    for make in (ShaderPrecompiler, lambda kind: ModelSpecificPrecompiler("m", kind)):
        with pytest.raises(InputError, match="Did you mean 'vision'"):
            make("vison")
    assert ModelSpecificPrecompiler("m", "text_generation").model_type == "text_generation"


async def test_mistakes_name_what_is_known() -> None:
    with pytest.raises(InputError, match=r"attention.*quantum"):
        ShaderPrecompiler().precompile_operation("quantum")
    with pytest.raises(ModelNotFoundError, match="all-MiniLM-L7"):
        await ModelSpecificPrecompiler("all-MiniLM-L7").precompile_all()  # type: ignore[misc]


async def test_a_failed_start_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    precompiler = ModelSpecificPrecompiler(str(TINY_BERT), platform="webgpu")

    async def broken(*_: object, **__: object) -> None:
        raise InputError("open", "a device", "none today")

    with monkeypatch.context() as patch:
        patch.setattr("bascule.compat.precompile.open_device", broken)
        with pytest.raises(InputError, match="today"):
            await precompiler.precompile_all()  # type: ignore[misc]
    assert done(await precompiler.precompile_all()).pipelines == 8  # type: ignore[misc]
    precompiler.close()
