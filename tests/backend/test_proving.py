"""Kernels prove themselves before they serve: wrong ones are rejected, once and for all."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest

from bascule.backend.reference import FUNCTIONS
from bascule.backend.webgpu import proving
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import Choices, machine_key
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernels import candidates
from bascule.backend.webgpu.proving import TOLERANCE, deviation
from bascule.backend.webgpu.trials import family, trial_of
from bascule.base.entries import MemoryRemembered
from bascule.device.loading import read_programs
from bascule.errors import WrongResultError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops import OPS
from bascule.program.ops.parts import attention_work, part_of
from bascule.program.ops.sampling import kept_weights
from bascule.program.program import Call, Dim, Program
from bascule.program.rewrites.attention import does_attention
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import Limits, fit
from tests.backend.miscompiling import MiscompilingGpu, Rule
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny
from tests.shaders.catalogue import _calls
from tests.shaders.harness import KINDS, disguise

WRONG = ("rstd = 1.0 /", "rstd = 1.2 /")
NAN = ("rstd = 1.0 /", "rstd = sqrt(params.eps - 1.0) /")


def norm_program() -> Program:
    graph = Graph("norm")
    x = graph.input("x", (Dim("B", 16), 20))
    weight, bias = graph.input("weight", (20,)), graph.input("bias", (20,))
    graph.output(graph.call("layer_norm", x, weight, bias, eps=1e-6))
    return freeze(graph)


def only_lane_16(label: str, constants: Any) -> bool:
    return label == "layer_norm_lane.wgsl" and constants["WORKGROUP"] == 16


def every_norm(label: str, _: Any) -> bool:
    return label.startswith("layer_norm")


async def prepared(
    gpu: NativeGpu, store: MemoryRemembered, rule: Rule, plant: tuple[str, str] = WRONG
) -> tuple[WebGpuBackend, Any]:
    """A backend as after opening the tier anew, and the program on it."""
    made: Any = MiscompilingGpu(gpu, rule, *plant)
    backend = WebGpuBackend(made, await Choices.open(store, gpu.adapter))
    backend.prove_kernels()
    return backend, await backend.prepare(norm_program(), backend.store(()))


async def result(executable: Any, rng: np.random.Generator) -> None:
    x, weight, bias = (rng.standard_normal(n).astype(np.float32) for n in ((16, 20), 20, 20))
    found = await executable.run({"B": 16}, {"x": x, "weight": weight, "bias": bias})
    wide = [v.astype(np.float64) for v in (x, weight, bias)]
    expected = FUNCTIONS["layer_norm"](*wide, eps=1e-6)
    np.testing.assert_allclose(next(iter(found.values())), expected, rtol=1e-5, atol=1e-5)
    executable.close()


@pytest.mark.parametrize("plant", [WRONG, NAN], ids=["wrong", "nan"])
async def test_a_wrong_variant_is_rejected_and_remembered(
    gpu: NativeGpu, rng: np.random.Generator, plant: tuple[str, str]
) -> None:
    store, trials = MemoryRemembered(), list[int]()
    for _ in range(2):
        backend, executable = await prepared(gpu, store, only_lane_16, plant)
        await result(executable, rng)
        trials.append(int(backend.stats["kernels_tried"]))
    assert trials == [2, 0]  # the wrong one and the next; then nothing
    (failure,) = (await Choices.open(store, gpu.adapter)).failed.values()
    assert failure.variant == "layer_norm_lane 16"
    assert failure.wrong
    output = "not finite" if plant is NAN else "off by"
    assert output in failure.messages[0][1]


async def test_the_plant_would_be_seen(gpu: NativeGpu, rng: np.random.Generator) -> None:
    made: Any = MiscompilingGpu(gpu, only_lane_16, *WRONG)
    backend = WebGpuBackend(made)  # nobody proves anything
    executable = await backend.prepare(norm_program(), backend.store(()))
    with pytest.raises(AssertionError):
        await result(executable, rng)
    assert made.spoiled == 1


async def test_where_every_variant_is_wrong_it_is_an_error_that_stays(gpu: NativeGpu) -> None:
    store = MemoryRemembered()
    with pytest.raises(WrongResultError, match=r"layer_norm.*is wrong.*off by") as caught:
        await prepared(gpu, store, every_norm)
    assert not caught.value.f16_cache
    choices = await Choices.open(store, gpu.adapter)
    call = norm_program().calls[0]
    assert len(choices.failed) == len(candidates(call, gpu.adapter))
    # The next load hears of it before anything is compiled.
    made: Any = MiscompilingGpu(gpu, every_norm, *WRONG)
    backend = WebGpuBackend(made, choices)
    backend.prove_kernels()
    with pytest.raises(WrongResultError, match="layer_norm_lane 16"):
        await backend.prepare(norm_program(), backend.store(()))
    assert (made.spoiled, backend.stats["kernels_tried"]) == (0, 0)


async def test_another_driver_proves_again(gpu: NativeGpu, rng: np.random.Generator) -> None:
    store = MemoryRemembered()
    await prepared(gpu, store, only_lane_16)
    gpu.adapter = replace(gpu.adapter, identity=gpu.adapter.identity + " updated")
    backend, executable = await prepared(gpu, store, lambda *_: False)
    await result(executable, rng)
    assert backend.stats["kernels_tried"] == 1
    assert not backend.choices.failed


async def test_what_was_kept_may_be_damaged(gpu: NativeGpu, rng: np.random.Generator) -> None:
    store = MemoryRemembered()
    await prepared(gpu, store, only_lane_16)
    key = f"choices {machine_key(gpu.adapter)}"
    entry = await store.get(key)
    assert entry is not None
    digest = next(iter(entry["failed"]))
    failure = entry["failed"][digest]
    for spoiled in (
        {"proven": 3},
        {"proven": [None, ["x"], 1]},
        {"failed": {digest: {**failure, "messages": []}}, "proven": []},
        {"failed": {digest: {**failure, "messages": [[0]]}}, "proven": {}},
    ):
        await store.put(key, {**entry, **spoiled})
        _, executable = await prepared(gpu, store, only_lane_16)
        await result(executable, rng)


def in_parts(program: Program) -> Program:
    """Within a quarter of its attention's work a dispatch, and 3/4 of a cache a binding."""
    calls = [call for call in program.calls if does_attention(call)]
    limits = Limits(dispatch_work=max(map(attention_work, calls), default=inf) / 4)
    caches = [state.nbytes for state in program.states if state.name.startswith("cache.")]
    kept = [part_of(call).n_kept for call in program.calls if call.op == "rope_append"]
    if max(kept, default=1) > 1:  # one KV head stays whole
        limits = replace(limits, binding_nbytes=max(caches) * 3 / 4)
    return fit(program, limits, (partitioned_kv_cache, head_partitioning, chunked_attention))[0]


async def every_call() -> list[Call]:
    models = [TINY_BERT, *(tiny(name).path for name in ("tiny-q4_1", "tiny-k", "tiny-mixed"))]
    programs = [program for model in models for program in await read_programs(model)]
    parts = [in_parts(program) for program in programs]
    results = [call for program in (*programs, *parts) for call in program.calls]
    return list({family(call): call for call in (*results, *_calls().calls)}.values())


@pytest.mark.parametrize("kind", KINDS)
async def test_right_kernels_pass_with_room_to_spare(
    gpu: NativeGpu, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def watched(found: Any, expected: Any) -> float:
        seen.append(deviation(found, expected))
        return seen[-1]

    monkeypatch.setattr(proving, "deviation", watched)
    gpu.adapter = disguise(gpu.adapter, kind)
    backend, calls = WebGpuBackend(gpu), await every_call()
    backend.prove_kernels()
    assert {call.op for call in calls} == set(OPS)
    kernels = await backend.pipelines.kernels_for(calls)
    assert len(backend.choices.proven) >= len(calls) > 20
    assert not backend.choices.failed
    assert max(seen) < TOLERANCE / 10
    tried = backend.stats["kernels_tried"]
    again = await backend.pipelines.kernels_for(calls)
    assert [k.digest for k in again] == [k.digest for k in kernels]
    assert backend.stats["kernels_tried"] == tried


async def test_a_trial_is_small_and_has_rows_left_over() -> None:
    for call in await every_call():
        trial = trial_of(call)
        operands = [o for o in trial.call.operands if o is not None]
        assert sum(o.nbytes for o in operands) < 3 << 20, call
        pairs = zip(trial.call.operands, call.operands, strict=True)
        for cut, whole in [(a, b) for a, b in pairs if a is not None and b is not None]:
            assert all(a <= b for a, b in zip(cut.limits, whole.limits, strict=True))
        for name, size in trial.sizes.items():
            limit = next(d.limit for d in trial.program.dims if d.name == name)
            assert size == (limit if limit < 4 else limit - 3)


async def test_no_draw_of_a_trial_hangs_on_rounding(rng: np.random.Generator) -> None:
    calls = [call for call in _calls().calls if call.op == "sample_token"]
    assert calls
    for call in calls:
        trial = trial_of(call)
        logits, tokens, position, settings = (
            trial.data(o).copy() for o in trial.call.operands if o is not None
        )
        (token,) = FUNCTIONS["sample_token"](logits, tokens, position.copy(), settings)
        kept = kept_weights(logits[0], settings)
        assert np.count_nonzero(kept) > 2
        for _ in range(50):
            shaken = logits + rng.uniform(-1e-3, 1e-3, logits.shape)
            again = FUNCTIONS["sample_token"](shaken, tokens, position.copy(), settings)
            assert again[0] == token
