"""PerformanceMonitor: what it reports is what ran, and it leaves nothing behind."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import PerformanceMonitor, PerformanceReport, UnifiedWebPlatform
from bascule.backend.profile import GpuProfile, Submission, joined
from bascule.backend.webgpu import profile_native
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.profile_native import TIMED_EACH
from bascule.errors import InputError
from bascule.tasks.sampler import GREEDY
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny

LLAMA = tiny("tiny-q4_1").path
TEXTS = ["a cat", "a dog sleeps"]


async def monitored() -> PerformanceMonitor:
    """One that has seen a tiny encoder embed."""
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        async with PerformanceMonitor(model) as monitor:
            await model.embed(TEXTS)
    return monitor


@pytest.mark.parametrize("tier", ["webgpu", "webgpu-limited", "wasm", "cpu"])
async def test_a_report_of_each_tier(tier: str) -> None:
    async with await bascule.open_device(tier) as device:
        model = await device.load(TINY_BERT)
        assert isinstance(model, bascule.EmbeddingModel)
        await model.embed(TEXTS)
        before = device.memory().now_nbytes
        plain = await model.embed(TEXTS)
        async with PerformanceMonitor(device) as monitor:
            result = await model.embed(TEXTS)
        assert np.array_equal(result, plain)
        report = monitor.report
        assert report is not None
        assert report.tier == tier
        n_ops = len(next(iter(model._prepared.values())).program.calls)
        if tier == "webgpu-limited":  # a device without timestamps
            assert (report.timed_by, len(report.work)) == ("submissions", 1)
            assert report.work[0].name == f"{n_ops} dispatches"
        else:
            assert report.timed_by == ("timestamps" if tier == "webgpu" else "calls")
            assert len(report.work) == sum(k.count for k in report.kernels) == n_ops
        assert report.n_submissions == 1
        assert [run.kind for run in report.runs] == ["embed"]
        assert 0 < report.busy_ms <= 1e3 * report.seconds
        assert report.inference_time_ms == report.runs[0].ms
        assert all(0 <= s.start_s <= report.seconds for s in report.work)
        if tier.startswith("webgpu"):
            assert report.read_nbytes == result.nbytes
            assert report.written_nbytes > 0
            assert report.memory_peak_mb >= before / 2**20
        assert device.memory().now_nbytes == before


async def test_kernels_have_the_names_of_their_variants() -> None:
    async with await bascule.open_device("webgpu") as device:
        model = await device.load(TINY_BERT)
        assert isinstance(model, bascule.EmbeddingModel)
        await model.embed(TEXTS)
        executable: Any = next(iter(model._prepared.values())).executable
        expected = Counter(kernel.variant for kernel in executable._kernels)
        async with PerformanceMonitor(model) as monitor:
            await model.embed(TEXTS)
        assert monitor.report is not None
        assert {k.name: k.count for k in monitor.report.kernels} == expected


async def test_generation_has_its_tokens() -> None:
    async with await bascule.load(LLAMA, tier="webgpu") as model:
        assert isinstance(model, bascule.LanguageModel)
        async with PerformanceMonitor(model) as monitor:
            made = await model.generate("Hi", max_new_tokens=4, sampling=GREEDY)
        report = monitor.report
        assert report is not None
        assert [run.n_new_tokens for run in report.runs] == [len(made.ids)]
        assert report.first_token_ms == made.stats["first_token_ms"]
        assert report.tokens_per_s == pytest.approx(made.stats["decode_tokens_per_s"])


def test_the_guide_in_a_script(tmp_path: Path) -> None:
    platform = UnifiedWebPlatform(str(TINY_BERT), platform="webgpu")
    monitor = PerformanceMonitor(platform)
    monitor.start()
    platform.run_inference({"input_text": "Monitor this"})
    report = monitor.stop_and_get_report()
    assert report.shader_compilation_time_ms > 0  # the load is measured, too
    assert {span.name for span in report.compiled} >= {k.name for k in report.kernels}
    assert report.inference_time_ms > 0
    assert report.memory_peak_mb > 0
    page = monitor.generate_performance_visualization(tmp_path / "performance.html")
    html = page.read_text("utf-8")
    data = html.split('<script type="application/json" id="data">')[1].split("</script>")[0]
    assert json.loads(data)["kernels"] == json.loads(json.dumps(report.as_json()))["kernels"]
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    platform.close()


async def test_the_trace_is_of_the_trace_event_format(tmp_path: Path) -> None:
    monitor = await monitored()
    assert monitor.report is not None
    monitor.report.save_chrome_trace(tmp_path / "trace.json")
    trace = json.loads((tmp_path / "trace.json").read_text("utf-8"))
    needed = {"X": {"name", "pid", "tid", "ts", "dur"}, "C": {"name", "pid", "ts", "args"},
              "M": {"name", "pid", "tid", "args"}}  # fmt: skip
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} == needed.keys()
    for event in events:
        assert needed[event["ph"]] <= event.keys()
        assert event.get("dur", 0) >= 0
        assert event["ts"] >= 0
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert {event["tid"] for event in events if event["ph"] == "X"} <= named
    kernels = [e for e in events if e["ph"] == "X" and e["tid"] == 1]
    assert len(kernels) == len(monitor.report.work)


async def test_off_the_driver_is_as_if_it_had_never_been_on(gpu: NativeGpu) -> None:
    driver: Any = gpu
    plain, before = driver._commit, gpu.allocated_nbytes
    await gpu.start_profile()
    assert driver._commit != plain
    with pytest.raises(InputError, match="profiled"):
        await gpu.start_profile()
    await gpu.stop_profile()
    assert driver._commit == plain
    assert driver._profile is None
    assert gpu.allocated_nbytes == before
    with pytest.raises(InputError, match="profiled"):
        await gpu.stop_profile()


async def test_a_pass_that_runs_often_is_timed_now_and_then() -> None:
    """So that timestamps cost a long measurement at most an eighth of what they cost a pass."""
    n_passes, n_timed = 2 * TIMED_EACH + 1, 3
    assert TIMED_EACH >= 8
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        await model.embed(["w4"])
        async with PerformanceMonitor(model) as one:
            await model.embed(["w4"])
        async with PerformanceMonitor(model) as many:
            for _ in range(n_passes):
                await model.embed(["w4"])
    assert one.report is not None
    assert many.report is not None
    n_dispatches = len(one.report.work)
    assert one.report.n_untimed == 0 < n_dispatches
    assert len(many.report.work) == n_timed * n_dispatches
    assert many.report.n_untimed == (n_passes - n_timed) * n_dispatches


async def test_tapes_past_the_room_run_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_native, "_PAGE_NBYTES", 4096)
    monkeypatch.setattr(profile_native, "_MAX_PAGES", 1)
    async with await bascule.load(TINY_BERT, tier="webgpu") as model:
        assert isinstance(model, bascule.EmbeddingModel)
        plain = await model.embed(TEXTS)
        async with PerformanceMonitor(model) as monitor:
            for _ in range(20):
                assert np.array_equal(await model.embed(TEXTS), plain)
    report = monitor.report
    assert report is not None
    n_ops = report.n_untimed + len(report.work)
    assert report.n_untimed > 0 < len(report.work)
    assert n_ops % 20 == 0


async def test_query_sets_hold_a_long_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile_native, "_SET_DISPATCHES", 16)  # a resolve is aligned to 256 bytes
    monitor = await monitored()
    report = monitor.report
    assert report is not None
    assert len(report.work) > 16
    assert min(span.start_s for span in report.work) >= 0
    assert max(span.start_s for span in report.work) <= report.seconds


def test_clocks_meet_where_no_work_starts_before_it_was_submitted() -> None:
    second = 10**9
    submissions = [
        Submission(1.0, [7], [100 * second, 101 * second]),
        Submission(2.5, [8], [101 * second, 102 * second]),
    ]
    result = joined(GpuProfile(True, 4.0, submissions, {8: "b.wgsl"}), {7: "a plain"})
    assert [(s.name, s.start_s, s.seconds) for s in result.work] == [
        ("a plain", 1.5, 1.0),
        ("b.wgsl", 2.5, 1.0),
    ]


async def test_what_cannot_be_monitored() -> None:
    with pytest.raises(InputError, match="PerformanceMonitor"):
        PerformanceMonitor(3)  # type: ignore[arg-type]
    idle = PerformanceMonitor(UnifiedWebPlatform(str(TINY_BERT)))
    with pytest.raises(InputError, match="a monitor that runs"):
        idle.stop_and_get_report()
    with pytest.raises(InputError, match="a report"):
        idle.generate_performance_visualization("nowhere.html")
    idle.start()
    with pytest.raises(InputError, match="work to report"):
        idle.stop_and_get_report()
    async with await bascule.open_device("cpu") as device, PerformanceMonitor(device):
        with pytest.raises(InputError, match="not profiled"):
            PerformanceMonitor(device).start()


async def test_a_kernel_of_the_users_own() -> None:
    async with await bascule.open_device("webgpu") as device:
        double = bascule.elementwise("x: f32 -> y: f32", "y = 2 * x", device=device)
        async with PerformanceMonitor(device) as monitor:
            await double(np.ones(8, np.float32))
        assert isinstance(monitor.report, PerformanceReport)
        assert len(monitor.report.work) == 1
        assert monitor.report.runs == ()
