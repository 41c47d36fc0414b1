"""WebGPUDebugger: the first wrong dispatch is named by op, kernel and element."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import PerformanceMonitor, UnifiedWebPlatform, WebGPUDebugger
from bascule.backend.tracing import TOLERANCE, compare
from bascule.errors import InputError, NotFiniteError
from bascule.observe import roofline
from bascule.observe.debugger import debug_page
from bascule.observe.shader_trace import ShaderTrace
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny
from tests.observe.planted import EDGE, planted

LLAMA = tiny("tiny-q4_1").path
TEXTS = ["a cat", "a dog sleeps"]


async def captured(folder: Path, tier: str = "webgpu", **options: int) -> WebGPUDebugger:
    """A debugger that has captured an encoder's pass, or a decoder's first ones."""
    async with await bascule.load(folder, tier=tier) as model:
        debugger = WebGPUDebugger(model)
        with debugger.capture_shader_trace(**options):
            if isinstance(model, bascule.EmbeddingModel):
                await model.embed(TEXTS)
            else:
                assert isinstance(model, bascule.LanguageModel)
                await model.generate("Hi there", max_new_tokens=3)
    return debugger


def trace_of(debugger: WebGPUDebugger) -> ShaderTrace:
    assert debugger.trace is not None
    return debugger.trace


@pytest.mark.parametrize("tier", ["webgpu", "webgpu-limited"])
async def test_a_right_model_has_no_difference_and_gives_the_same_answer(tier: str) -> None:
    async with await bascule.load(TINY_BERT, tier=tier) as model:
        assert isinstance(model, bascule.EmbeddingModel)
        plain = await model.embed(TEXTS)
        debugger = WebGPUDebugger(model)
        with debugger.capture_shader_trace():
            again = await model.embed(TEXTS)
        assert np.array_equal(plain, again)
        trace = trace_of(debugger)
        calls = next(iter(model._prepared.values())).program.calls
        assert [c.call.op for c in trace.calls] == [c.op for c in calls]
        assert (trace.n_passes, trace.findings) == (1, ())
        assert str(trace).endswith("all agree with numpy.")
        outputs = trace.calls[-1].outputs
        assert outputs is not None
        np.testing.assert_array_equal(next(iter(outputs.values()))[::-1], plain)  # longest first
        norm = next(c for c in trace.calls if c.call.op == "layer_norm")
        assert norm.kernel.params["eps"] == "1e-06"  # the digits of a float32, no more
        assert trace.timed_by == ("timestamps" if tier == "webgpu" else "submissions")
        await model.embed(TEXTS)
        assert len(trace.calls) == len(calls)  # outside the block nothing is captured


async def test_a_decoder_with_states_and_blocks_has_no_difference() -> None:
    trace = trace_of(await captured(LLAMA, passes=2))
    assert (trace.n_passes, trace.findings) == (2, ())
    assert {"rope_append", "cached_attention", "sample_token"} <= {c.call.op for c in trace.calls}
    append = next(c for c in trace.calls if c.call.op == "rope_append")
    assert append.outputs is not None
    assert len(append.outputs) == 2  # the result and the cache


async def test_a_wrong_tile_edge_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, "linear_any.wgsl", *EDGE)
    trace = trace_of(await captured(TINY_BERT))
    wrong = trace.first_wrong
    assert wrong is not None
    assert wrong.difference is not None
    first = next(c for c in trace.calls if c.call.op == "linear")
    assert (wrong.index, wrong.call.op) == (first.index, "linear")
    assert (wrong.kernel.file, wrong.kernel.entry) == ("linear_any.wgsl", "main")
    result = wrong.difference
    *rows, columns = wrong.call.result.limits
    assert result.index == (0, 0, columns - 1)
    assert (result.fault, result.value) == ("wrong", wrong.call.result.name)
    assert 0 < result.n_wrong <= np.prod(rows)
    assert result.deviation > TOLERANCE
    assert wrong.outputs is not None
    assert result.got == wrong.outputs[result.value][result.index] != result.expected
    # Each dispatch is compared on its own inputs: what follows the wrong one is not blamed.
    assert {c.call.op for c in trace.findings} == {"linear"}
    expected = "op linear by linear_any (linear_any.wgsl, entry point main): element [0, 0, "
    assert expected in str(trace)


async def test_a_kernel_that_gives_nan_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    nan = "rstd = sqrt(params.eps - 1.0) /"
    planted(monkeypatch, "layer_norm_lane.wgsl", "rstd = 1.0 /", nan)
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        debugger = WebGPUDebugger(model)
        with pytest.raises(NotFiniteError), debugger.capture_shader_trace():
            await model.embed(TEXTS)
    wrong = trace_of(debugger).first_wrong
    assert wrong is not None
    assert wrong.difference is not None
    assert (wrong.index, wrong.call.op, wrong.difference.fault) == (1, "layer_norm", "wrong")
    assert np.isnan(wrong.difference.got)
    assert np.isfinite(wrong.difference.expected)


async def test_a_nan_in_a_weight_is_found_where_it_first_arises() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        await model.loaded()
        weights: Any = model.weights
        name = sorted(n for n in weights.targets if "layer.1" in n and n.endswith("weight"))[0]
        weights.write(weights.targets[name], 0, np.full(1, np.nan, np.float32))
        debugger = WebGPUDebugger(model)
        with pytest.raises(NotFiniteError), debugger.capture_shader_trace():
            await model.embed(TEXTS)
    trace = trace_of(debugger)
    wrong = trace.first_wrong
    assert wrong is not None
    assert wrong.difference is not None
    assert wrong.difference.fault == "not finite"
    assert wrong.difference.not_finite == (name,)
    readers = [c.index for c in trace.calls if name in {o.name for o in c.call.operands if o}]
    assert wrong.index == readers[0] > 0
    assert name in str(trace)


@pytest.mark.parametrize("tier", ["cpu", "wasm"])
async def test_other_tiers_say_that_they_have_no_dispatches(tier: str, tmp_path: Path) -> None:
    debugger = await captured(TINY_BERT, tier)
    trace = trace_of(debugger)
    assert trace.calls == ()
    assert str(trace).startswith(f"Nothing was captured on the {tier} tier: ")
    assert "PerformanceMonitor" in str(trace)
    page = debugger.export_debug_report(tmp_path / "report.html").read_text("utf-8")
    assert f"Nothing was captured on the {tier} tier" in page
    with pytest.raises(InputError, match="no dispatches"):
        await debugger._analyze()


async def test_arrays_past_the_memory_are_compared_and_not_kept() -> None:
    trace = trace_of(await captured(TINY_BERT, keep_nbytes=4000))
    kept = [c for c in trace.calls if c.outputs is not None]
    assert 0 < len(kept) < len(trace.calls)
    held = [*(c.outputs or {} for c in kept), *(c.inputs or {} for c in kept)]
    assert sum(a.nbytes for arrays in held for a in arrays.values()) <= 4000
    assert all(c.deviation < TOLERANCE for c in trace.calls)


def test_the_guide_in_a_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_OF_SOFTWARE", roofline.Sizes(1 << 16, 64))
    platform = UnifiedWebPlatform(str(TINY_BERT), platform="webgpu")
    debugger = WebGPUDebugger(platform)
    with debugger.capture_shader_trace():
        platform.run_inference({"input_text": "Debug this"})
    result: Any = debugger.analyze_shader_performance()
    trace = trace_of(debugger)
    assert len(result.dispatches) == len(trace.calls) > 0
    line = result.roofline
    assert min(line.bytes_per_s, line.flops_per_s) > 0
    linear = next(d for d in result.dispatches if d.op == "linear")
    call = trace.calls[linear.index].call
    x, weight = call.operands[:2]
    assert x is not None
    assert weight is not None
    assert linear.flops == 2 * np.prod(x.limits) * weight.limits[0]
    assert linear.attainable_ms == pytest.approx(
        1e3 * max(linear.flops / line.flops_per_s, linear.nbytes / line.bytes_per_s)
    )
    wins = [d.ms - d.attainable_ms for d in result.slowest]
    assert wins == sorted(wins, reverse=True)
    html = debugger.export_debug_report(tmp_path / "debug_report.html").read_text("utf-8")
    data = json.loads(
        html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    )
    assert [k["wgsl"] for k in data["kernels"]] == [k.wgsl for k in trace.kernels]
    assert len(data["performance"]["dispatches"]) == len(data["calls"]) == len(trace.calls)
    assert "http" not in html
    platform.close()


def test_names_on_the_page_are_escaped() -> None:
    trace = ShaderTrace("webgpu", "<script>alert(1)</script>", "", 0, (), "</script><b>")
    html = debug_page(trace, None)
    assert "<script>alert" not in html
    assert "</script><b>" not in html


async def test_what_cannot_be_debugged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="WebGPUDebugger"):
        WebGPUDebugger(3)  # type: ignore[arg-type]
    idle = WebGPUDebugger(UnifiedWebPlatform(str(TINY_BERT)))
    with pytest.raises(InputError, match="a captured trace"):
        idle.export_debug_report(tmp_path / "nowhere.html")
    with idle.capture_shader_trace():
        pass
    assert idle.trace is None
    with pytest.raises(InputError, match="passes"), idle.capture_shader_trace(passes=0):
        pass
    async with await bascule.open_device("webgpu") as device:
        debugger = WebGPUDebugger(device)
        with debugger.capture_shader_trace():
            other = WebGPUDebugger(device)
            with pytest.raises(InputError, match="not traced"), other.capture_shader_trace():
                pass
        assert str(debugger.trace).startswith("No pass of a model ran")


async def test_beside_a_monitor_dispatches_are_compared_and_not_timed() -> None:
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        debugger = WebGPUDebugger(model)
        async with PerformanceMonitor(model) as monitor:
            with debugger.capture_shader_trace():
                await model.embed(TEXTS)
        trace = trace_of(debugger)
        assert monitor.report is not None
        assert len(monitor.report.work) == len(trace.calls)
        assert (trace.timed_by, trace.findings) == ("", ())
        with pytest.raises(InputError, match="timed"):
            await debugger._analyze()


def test_numbers_are_compared_as_their_dtypes_allow() -> None:
    ids = np.array([1, 2, 3], np.uint32)
    assert compare("ids", ids, ids) is None
    result = compare("ids", np.array([1, 2, 4], np.uint32), ids)
    assert result is not None
    assert (result.index, result.got, result.expected) == ((2,), 4, 3)
    hidden = np.array([-np.inf, 1.0], np.float32)
    assert compare("scores", hidden, hidden) is None
    assert compare("scores", np.array([0.0, 1.0], np.float32), hidden) is not None
    half = np.array([100.0, 0.01], np.float16)
    assert compare("cache", half + np.array([0.0625, 0], np.float16), half) is None
