"""The calls of the WebGPU guide that models come from, as written there but for the import path.

The names that it loads are folders of tiny models with random weights here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bascule import (
    AudioComputeOptimizer,
    ModelSpecificPrecompiler,
    ParallelMultimodalLoader,
    PerformanceMonitor,
    ProgressiveModelLoader,
    StreamingInferencePipeline,
    UnifiedWebPlatform,
    WebGPUDebugger,
)
from bascule.errors import InputError
from tests.goldens import TINY_BERT, cosines, golden
from tests.goldens.image_text import TEXTS, build_clip
from tests.goldens.t5 import build as build_t5
from tests.goldens.vision import pictures

CLIP = np.load(Path(__file__).parents[1] / "goldens" / "image_text.npz")
EXPECTED = golden("tiny-bert")
SAMPLE = {"input_text": EXPECTED.texts[0]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("names")
    shutil.copytree(TINY_BERT, place / "bert-base-uncased")
    build_t5("t5", place / "t5-small")
    build_clip(place / "clip-vit-base-patch32")
    return place


@pytest.fixture(autouse=True)
def _names(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders)
    monkeypatch.setenv("BASCULE_REMEMBERED", str(folders / "remembered"))


@pytest.fixture
def platform() -> Iterator[Any]:
    platform = UnifiedWebPlatform(model_name="bert-base-uncased", platform="webgpu")
    yield platform
    platform.close()


def check(result: dict[str, Any]) -> None:
    """Whether the sentence's embedding is the reference's."""
    assert result["tier"] == "webgpu"
    assert cosines(result["embeddings"], EXPECTED.embeddings[:1]) >= 0.99999


def test_core_component_without_a_loop() -> None:
    platform = UnifiedWebPlatform(
        model_name="bert-base-uncased", model_type="text", platform="webgpu"
    )
    result: Any = platform.run_inference(SAMPLE)
    check(result)
    platform.close()


async def test_basic_workflow(platform: Any) -> None:
    await platform.load_model()
    result = await platform.run_inference(SAMPLE)
    check(result)
    processed_result = platform.post_process_result(result)
    assert processed_result["embeddings"] == result["embeddings"].tolist()


async def test_advanced_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bascule.compat.platform._TUNING_S", 0.3)
    platform = UnifiedWebPlatform(
        model_name="bert-base-uncased",
        platform="webgpu",
        enable_shader_precompilation=True,
        enable_compute_shader_optimizations=True,
        enable_parallel_loading=True,
        precision="fp16",
    )
    stages: dict[str, float] = {}
    platform.on_progress(lambda stage, progress: stages.update({stage: progress}))
    platform.set_memory_optimization_level(2)
    result = await platform.run_inference_optimized(SAMPLE, enable_batching=True, batch_size=4)
    assert cosines(result["embeddings"], EXPECTED.embeddings[:1]) >= 0.999  # weights of 8 bits
    assert stages["weights"] == stages["ready"] == 100
    platform.close()


async def test_streaming() -> None:
    async def text(buffered: int) -> str:
        pipeline = StreamingInferencePipeline(
            model_name="t5-small", max_length=12, stream_buffer_size=buffered
        )
        result = ""
        async for token in pipeline.generate_streaming(
            "Translate English to French: Hello world", temperature=0
        ):
            result += token
        assert 0 < pipeline.stats["new_tokens"] <= 12
        pipeline.close()
        return result

    assert await text(8) == await text(1) != ""


async def test_a_loader_of_chunks(capsys: pytest.CaptureFixture[str]) -> None:
    loader = ProgressiveModelLoader(
        model_path="clip-vit-base-patch32", parallel_components=True, chunk_size_mb=10
    )
    loader.register_progress_callback(lambda progress: print(f"Loading: {progress}%"))
    model: Any = await loader.load_model()
    assert capsys.readouterr().out.endswith("Loading: 100%\n")
    rows = await model.embed_text(TEXTS)
    assert cosines(rows, CLIP["clip_texts"]).min() >= 0.99999
    model.close()


async def test_components_side_by_side() -> None:
    loader = ParallelMultimodalLoader(
        model_path="clip-vit-base-patch32", components=["vision_encoder", "text_encoder"]
    )
    async with await loader.load_parallel() as model:
        seen: Any = model["vision_encoder"]
        images = await seen.embed_image(pictures()[:2])
        assert cosines(images, CLIP["clip_images"][:2]).min() >= 0.99999


async def test_a_precompiled_model() -> None:
    precompiler = ModelSpecificPrecompiler(
        model_name="bert-base-uncased", model_type="text", cache_results=True, platform="webgpu"
    )
    precompiler.precompile_all()
    model = await precompiler.get_model_with_precompiled_shaders()
    check(await model.run_inference(SAMPLE))  # type: ignore[misc]
    model.close()
    precompiler.close()


async def test_audio_with_kernels_measured_here() -> None:
    optimizer = AudioComputeOptimizer(model_type="whisper", browser_specific=True)
    optimizer.optimize_for_current_browser()
    hz = 1000
    result = await optimizer.process_audio(np.sin(2 * np.pi * hz / 16000 * np.arange(16000)))
    assert result.shape == (80, 3000)
    band = int(result[:, 50].argmax())
    # Bands are 1/80 of the mels up to 8 kHz wide; 1 kHz is at 15 of 45.245 mels (Slaney).
    assert abs(band - 80 * 15 / 45.245) < 2
    assert result[band, 50] > result[band, 200] + 1  # the sound ends after a second
    optimizer.close()


async def test_debugger_writes_a_page(platform: Any, tmp_path: Path) -> None:
    debugger = WebGPUDebugger(platform)
    with debugger.capture_shader_trace():
        check(await platform.run_inference(SAMPLE))
    debugger.analyze_shader_performance()
    debugger.export_debug_report(str(tmp_path / "debug_report.html"))
    assert "layer_norm" in (tmp_path / "debug_report.html").read_text("utf-8")


async def test_monitor_reports_milliseconds_and_bytes(platform: Any, tmp_path: Path) -> None:
    monitor = PerformanceMonitor(platform)
    monitor.start()
    check(await platform.run_inference(SAMPLE))
    report = monitor.stop_and_get_report()
    assert report.shader_compilation_time_ms > 0
    assert report.inference_time_ms > 0
    use = platform.get_memory_usage()
    assert report.memory_peak_mb == pytest.approx(use["peak"] / (1 << 20))
    monitor.generate_performance_visualization(str(tmp_path / "performance.html"))
    assert "layer_norm" in (tmp_path / "performance.html").read_text("utf-8")


@pytest.mark.parametrize("switch", ["fallback_to_webnn", "fallback_to_wasm"])
async def test_fallbacks_where_none_is_needed(switch: str) -> None:
    platform = UnifiedWebPlatform(
        model_name="bert-base-uncased", platform="webgpu", **{switch: True}
    )
    check(await platform.run_inference(SAMPLE))  # type: ignore[misc]
    platform.close()


async def test_feature_fallbacks(platform: Any) -> None:
    platform.enable_feature_fallbacks(True)
    has_compute_shaders = await platform.test_feature_support("compute_shaders")
    assert has_compute_shaders is True


@pytest.mark.parametrize(
    ("inputs", "found"), [("a cat", "str"), ({"text": "a"}, "'text'"), ({}, "an empty one")]
)
def test_inputs_that_no_model_can_use_are_named(inputs: Any, found: str) -> None:
    platform = UnifiedWebPlatform(str(TINY_BERT), platform="cpu")
    with pytest.raises(InputError, match=f"a mapping with 'input_text'.*, found {found}"):
        platform.run_inference(inputs)
    platform.close()
