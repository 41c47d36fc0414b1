"""Tuning: what is measured decides, within its time; a wrong variant is never taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.backend.tuning import TuneReport
from bascule.backend.webgpu import autotune
from bascule.backend.webgpu import kernels as table
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import Choices, signature
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates, select
from bascule.base.entries import MemoryRemembered
from bascule.base.progress import Progress
from bascule.device.loading import load
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program
from tests.goldens import TINY_BERT, cosines, golden

SAMPLE_MS = autotune._SAMPLE_MS


@pytest.fixture(autouse=True)
def short_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a measured time decides, the times lie far apart."""
    monkeypatch.setattr(autotune, "_SAMPLE_MS", 2.0)


def program(rows: int = 64, cols: int = 64, inner: int = 256) -> Program:
    graph = Graph("mixed")
    x = graph.input("x", (Dim("B", rows), inner))
    weight, row = graph.input("weight", (cols, inner)), graph.input("row", (cols,))
    y = graph.call("linear", x, weight, activation="none")
    y = graph.call("layer_norm", y, row, row, None, eps=1e-5)
    graph.output(graph.call("l2_normalise", y, eps=1e-12))
    return freeze(graph)


def planted(
    monkeypatch: pytest.MonkeyPatch, op: str, place: int, change: Mapping[str, str] | None
) -> None:
    """Put a candidate into the table: the default's copy with its text changed."""
    real = table._ROWS[op]

    def row(call: Any, adapter: Any) -> Any:
        makers = list(real(call, adapter))
        default = makers[0]

        def make() -> Kernel:
            kernel = default()
            wgsl = kernel.wgsl
            for old, new in (change or {}).items():
                assert old in wgsl
                wgsl = wgsl.replace(old, new)
            linked = replace(kernel.linked, wgsl=wgsl + "\n// planted")
            return replace(kernel, linked=linked, variant="planted", key=("planted", wgsl))

        makers.insert(place, make)
        return makers

    monkeypatch.setitem(table._ROWS, op, row)


# The last row's last block is never stored: right nearly everywhere, and quicker.
WRONG = {
    "store(row, col, s0);": "if (row + 8u < params.rows) { store(row, col, s0); }",
}


async def test_a_planted_wrong_variant_is_never_chosen(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "linear", 1, WRONG)
    store = MemoryRemembered()
    backend = WebGpuBackend(gpu, await Choices.open(store, gpu.adapter))
    report = await backend.tune([program()], budget_s=60)
    (result,) = report.wrong
    assert "planted" in result
    again = await Choices.open(store, gpu.adapter)
    assert [f.variant for f in again.failed.values()] == ["planted"]
    call = program().calls[0]
    assert select(call, gpu.adapter, again).variant != "planted"
    assert again.is_tuned(call, candidates(call, gpu.adapter))


# NaN made of a parameter: a compiler refuses a constant one.
@pytest.mark.parametrize("factor", ["1.002", "(0.0 / f32(params.rows - params.rows))"])
async def test_small_errors_and_nans_are_found(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch, factor: str
) -> None:
    old = "activation(sums + bias);"
    planted(monkeypatch, "linear", 1, {old: f"activation(sums + bias) * {factor};"})
    report = await WebGpuBackend(gpu).tune([program()], budget_s=60)
    assert len(report.wrong) == 1


async def test_a_default_without_finite_numbers_judges_nobody(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = "activation(sums + bias);"
    spoil = {old: "activation(sums + bias) * (0.0 / f32(params.rows - params.rows));"}
    planted(monkeypatch, "linear", 0, spoil)
    backend = WebGpuBackend(gpu)
    report = await backend.tune([program()], budget_s=60)
    assert len(report.wrong) == 1
    assert [f.signature.split()[0] for f in report.findings] == ["layer_norm", "l2_normalise"]
    assert not backend.choices.failed


# The default walks K 32 times over, and is right.
_SUMS = "".join(f"s{i} = vec4f(); t{i} = vec4f(); " for i in range(8))
SLOW = {
    "for (var k = 0u; k < params.inner4; k++) {": "for (var n = 0u; n < 32u * params.inner4; n++) {"
    f" let k = n % params.inner4; if (k == 0u) {{ {_SUMS} }}"
}


async def test_the_measured_winner_is_taken_and_a_slow_default_left(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "linear", 0, SLOW)
    store, call = MemoryRemembered(), program().calls[0]
    backend = WebGpuBackend(gpu, await Choices.open(store, gpu.adapter))
    assert select(call, gpu.adapter, backend.choices).variant == "planted"
    report = await backend.tune([program()], budget_s=60)
    assert report.wrong == []
    (finding,) = [f for f in report.findings if f.signature == signature(call)]
    print(finding)
    assert finding.default == "planted"
    assert finding.chosen.startswith("linear_")
    assert finding.gain > 1.5
    assert set(finding.times) == {k.variant for k in candidates(call, gpu.adapter)}
    assert select(call, gpu.adapter, backend.choices).variant == finding.chosen
    again = await Choices.open(store, gpu.adapter)
    assert select(call, gpu.adapter, again).variant == finding.chosen


@pytest.mark.parametrize(
    ("duels_ms", "chosen"), [(1.0, "the default"), (0.97, "the default"), (0.8, "planted")]
)
async def test_a_lead_must_last(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch, duels_ms: float, chosen: str
) -> None:
    """A twin that wins by luck does not replace the default; one with a steady lead does."""
    real = table._ROWS["linear"]
    monkeypatch.setitem(table._ROWS, "linear", lambda c, a: list(real(c, a))[:1])
    planted(monkeypatch, "linear", 1, None)
    samples: list[str] = []

    async def sample(_: Any, scratch: Any, kernel: Kernel, before: float | None = None) -> float:
        del scratch, before
        samples.append(kernel.variant)
        in_the_race = samples.count(kernel.variant) <= autotune._ROUNDS
        return 1.0 if kernel.variant != "planted" else 0.8 if in_the_race else duels_ms

    monkeypatch.setattr(autotune._Bench, "sample", sample)
    report = await WebGpuBackend(gpu).tune([program()], budget_s=60)
    (finding,) = [f for f in report.findings if f.signature.startswith("linear")]
    assert finding.default != "planted"
    assert finding.chosen == (finding.default if chosen == "the default" else chosen)
    assert samples.count("planted") == autotune._ROUNDS + autotune._PAIRS


async def test_calls_on_a_cache_of_halves_are_measured(gpu: NativeGpu) -> None:
    graph = Graph("cached")
    cache, position = graph.state("cache", (8, 16), "f16"), graph.state("position", (1,), "u32")
    q = graph.input("q", (1, 16))
    heads = {"heads": 2, "kv_heads": 1, "size": 8, "window": 0}
    graph.output(graph.call("cached_attention", q, cache, position, **heads))
    gpu.adapter = replace(gpu.adapter, software=False)
    report = await WebGpuBackend(gpu).tune([freeze(graph)], budget_s=60)
    assert report.skipped == report.wrong == []
    assert len(report.findings) == 1


async def test_nothing_is_measured_twice(gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    store, before = MemoryRemembered(), gpu.n_objects
    first = await WebGpuBackend(gpu, await Choices.open(store, gpu.adapter)).tune(
        [program()], budget_s=60
    )
    assert len(first.findings) == 3
    assert first.known == 0
    assert gpu.n_objects == before
    second = await WebGpuBackend(gpu, await Choices.open(store, gpu.adapter)).tune(
        [program(), program(cols=68)], budget_s=60
    )
    assert second.known == 3
    messages = [f.signature for f in second.findings]
    assert len(messages) == 3
    assert all("68" in name for name in messages)
    # A candidate that was not there before makes its signatures unknown again.
    planted(monkeypatch, "layer_norm", 1, None)
    third = await WebGpuBackend(gpu, await Choices.open(store, gpu.adapter)).tune(
        [program()], budget_s=60
    )
    assert third.known == 2
    assert [f.signature.split()[0] for f in third.findings] == ["layer_norm"]


class ClockedGpu:
    """A real device by a clock of its own: a replay takes 1 ms and 10 ms a dispatch."""

    def __init__(self, gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch) -> None:
        self._gpu = gpu
        self._dispatches: dict[int, int] = {}
        self.now = 0.0
        monkeypatch.setattr(autotune, "perf_counter", lambda: self.now)
        monkeypatch.setattr(autotune, "_SAMPLE_MS", SAMPLE_MS)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gpu, name)

    def record(self, words: Any) -> int:
        tape = self._gpu.record(words)
        self._dispatches[tape] = words[1]
        return tape

    def replay(self, tape: int, writes: bytes = b"") -> None:
        self.now += 0.001 + 0.010 * self._dispatches[tape]
        self._gpu.replay(tape, writes)


@pytest.mark.parametrize("budget_s", [0.0, 0.05, 0.3, 1.0, 3.0])
async def test_the_budget_is_kept(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch, budget_s: float
) -> None:
    clocked: Any = ClockedGpu(gpu, monkeypatch)
    backend = WebGpuBackend(clocked)
    report = await backend.tune([program(), program(cols=68)], budget_s=budget_s)
    assert report.spent_s <= budget_s + 0.05
    assert len(report.findings) + len(report.skipped) == 6
    assert report.skipped
    # What was not finished keeps the default.
    call = program().calls[0]
    if signature(call) in report.skipped:
        assert select(call, gpu.adapter, backend.choices).variant == "linear_block 8x8"


async def test_programs_in_the_order_given_the_dear_calls_first(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked: Any = ClockedGpu(gpu, monkeypatch)
    backend = WebGpuBackend(clocked)
    report = await backend.tune([program(), program(rows=8)], budget_s=1e6)
    messages = [f.signature.split("[")[0].split()[0] for f in report.findings]
    assert messages == ["linear", "layer_norm", "l2_normalise"] * 2
    assert "B64" in report.findings[0].signature
    assert all(f.chosen == f.default for f in report.findings)  # by this clock all are the same
    assert report.findings[0].times["linear_any"] == pytest.approx(10.0)


async def test_a_signature_too_dear_for_its_share_waits_for_the_others(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocked: Any = ClockedGpu(gpu, monkeypatch)
    # linear has ten candidates and more, at least 10 ms each: that is over a quarter of this.
    report = await WebGpuBackend(clocked).tune([program()], budget_s=0.75)
    assert report.findings[0].signature.startswith("layer_norm")


async def test_cancelling_keeps_what_is_finished_and_frees_the_rest(gpu: NativeGpu) -> None:
    store, before = MemoryRemembered(), gpu.n_objects
    backend = WebGpuBackend(gpu, await Choices.open(store, gpu.adapter))
    started = asyncio.Event()

    def notify(progress: Progress) -> None:
        assert progress.stage == "tuning"
        if progress.done == 1:
            started.set()

    task = asyncio.ensure_future(backend.tune([program()], budget_s=60, progress=notify))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gpu.n_objects == before
    assert len((await Choices.open(store, gpu.adapter)).tuned) == 1
    rest = await backend.tune([program()], budget_s=60)
    assert (rest.known, len(rest.findings)) == (1, 2)


async def test_a_variant_that_does_not_compile_leaves_the_race(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, "linear", 1, {"fn main(": "fn main(("})
    backend = WebGpuBackend(gpu)
    report = await backend.tune([program()], budget_s=60)
    assert len(report.findings) == 3
    assert [f.variant for f in backend.choices.failed.values()] == ["planted"]
    (finding,) = [f for f in report.findings if f.signature.startswith("linear")]
    assert "planted" not in finding.times


async def test_a_model_runs_on_after_tuning_with_the_new_choices() -> None:
    expected = golden("tiny-bert")
    async with await load(TINY_BERT, tier="webgpu") as model:
        before = await model.embed(expected.texts)
        await model.embed("w4")  # the bucket used last is served first
        objects = model._backend.gpu.n_objects  # type: ignore[attr-defined]
        messages: list[str] = []
        running = asyncio.ensure_future(model.embed(expected.texts * 8))
        report = await model.tune(3.0, progress=lambda p: messages.append(p.stage))
        await running
        assert report.findings
        assert set(messages) == {"tuning"}
        assert model.stats["signatures_tuned"] == len(report.findings)
        after = await model.embed(expected.texts)
        assert (cosines(after, expected.embeddings) >= 0.99999).all()
        np.testing.assert_allclose(after, before, atol=1e-5)
        await model.embed("w4")
        assert model._backend.gpu.n_objects <= objects  # type: ignore[attr-defined]
        chosen = {f.signature: f.chosen for f in report.findings}
        served = 0
        for prepared in model._prepared.values():
            kernels = prepared.executable._kernels  # type: ignore[attr-defined]
            for call, kernel in zip(prepared.program.calls, kernels, strict=True):
                served += signature(call) in chosen
                assert kernel.variant == chosen.get(signature(call), kernel.variant)
        assert served
    with pytest.raises(InputError, match="closed"):
        await model.tune(1.0)


async def test_the_cpu_tier_has_nothing_to_tune() -> None:
    async with await load(TINY_BERT, tier="cpu") as model:
        assert await model.tune(1.0) == TuneReport()


@pytest.mark.parametrize("dtype", ["bf16", "q4_1", "q8_0", "q6_k"])
async def test_weights_in_blocks_are_tuned(gpu: NativeGpu, dtype: Any) -> None:
    graph = Graph("blocks")
    weight = graph.parameter("weight", (40, 256), dtype=dtype)
    graph.output(graph.call("linear", graph.input("x", (2, 256)), weight, activation="none"))
    report = await WebGpuBackend(gpu).tune([freeze(graph)], budget_s=60)
    assert not report.wrong
    assert len(report.findings) == 1
