"""Choosing kernels: what was learned is believed where it still fits, and a failure costs once."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bascule.backend.webgpu import kernels as table
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.choices import Choices, machine_key, signature
from bascule.backend.webgpu.gpu_native import NativeGpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates, select
from bascule.base.entries import MemoryRemembered
from bascule.errors import GpuError, ShaderError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Call, Dim, Program
from tests.shaders.harness import KINDS, check_op, disguise, normal, sum_tolerance


def linear_program(rows: int = 16, cols: int = 24, inner: int = 20) -> Program:
    graph = Graph("linear")
    x = graph.input("x", (Dim("B", rows), inner))
    weight = graph.input("weight", (cols, inner))
    graph.output(graph.call("linear", x, weight, activation="none"))
    return freeze(graph)


def linear_call(**sizes: int) -> Call:
    return linear_program(**sizes).calls[0]


class CountingGpu:
    """A real device that counts what it compiles and refuses shaders by a rule."""

    def __init__(self, gpu: NativeGpu, refuse: Callable[[str, Mapping[str, float]], bool]) -> None:
        self._gpu = gpu
        self._refuse = refuse
        self.tried: list[tuple[str, tuple[tuple[str, float], ...]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gpu, name)

    async def pipeline(
        self, wgsl: str, constants: Mapping[str, float], bindings: str, label: str
    ) -> int:
        self.tried.append((label, tuple(sorted(constants.items()))))
        if self._refuse(label, constants):
            wgsl += "\nfn planted( {"  # a real compiler's real refusal
        return await self._gpu.pipeline(wgsl, constants, bindings, label)


def refuse_block_8x8(label: str, constants: Mapping[str, float]) -> bool:
    return label == "linear_block.wgsl" and constants["LANES_X"] == constants["LANES_Y"] == 8


async def product(gpu: Any, choices: Choices, inputs: list[Any]) -> Any:
    backend = WebGpuBackend(gpu, choices)
    executable = await backend.prepare(linear_program(), backend.store(()))
    named = {"x": inputs[0], "weight": inputs[1]}
    result = next(iter((await executable.run({"B": 16}, named)).values()))
    executable.close()
    return backend, result


async def test_a_planted_failing_variant_is_compiled_once_ever(
    gpu: NativeGpu, rng: np.random.Generator
) -> None:
    store = MemoryRemembered()
    inputs = [normal(rng, 16, 20), normal(rng, 24, 20)]
    tries: list[int] = []
    for _ in range(3):  # three visits
        counting = CountingGpu(gpu, refuse_block_8x8)
        choices = await Choices.open(store, gpu.adapter)
        backend, result = await product(counting, choices, inputs)
        np.testing.assert_allclose(result, inputs[0] @ inputs[1].T, rtol=1e-4, atol=1e-4)
        tries.append(sum(refuse_block_8x8(label, dict(c)) for label, c in counting.tried))
        assert backend.stats["pipeline_retries_of_failed"] == 0
        assert backend.stats["variants_known_failed"] == 1
    assert tries == [1, 0, 0]
    (failure,) = (await Choices.open(store, gpu.adapter)).failed.values()
    assert failure.variant == "linear_block 8x8"
    assert failure.messages[0][1]


async def test_a_retry_would_be_counted(gpu: NativeGpu) -> None:
    store = MemoryRemembered()
    call = linear_call()
    first = candidates(call, gpu.adapter)[0]
    choices = await Choices.open(store, gpu.adapter)
    choices.note_failure(first, [(1, "planted")])
    await choices.save()
    backend = WebGpuBackend(gpu, await Choices.open(store, gpu.adapter))
    await backend.pipelines.ensure([first])
    assert backend.stats["pipeline_retries_of_failed"] == 1


async def test_where_all_fail_the_first_error_is_told_and_all_may_try_again(
    gpu: NativeGpu,
) -> None:
    store = MemoryRemembered()
    refusing = True
    counting = CountingGpu(gpu, lambda *_: refusing)
    backend = WebGpuBackend(counting, await Choices.open(store, gpu.adapter))  # type: ignore[arg-type]
    with pytest.raises(ShaderError) as caught:
        await backend.prepare(linear_program(), backend.store(()))
    assert caught.value.label == "linear_block.wgsl"
    assert len(counting.tried) == len(candidates(linear_call(), gpu.adapter))
    assert not (await Choices.open(store, gpu.adapter)).failed
    refusing = False
    executable = await backend.prepare(linear_program(), backend.store(()))
    executable.close()
    assert backend.stats["pipeline_retries_of_failed"] == 0


async def test_what_is_no_shader_error_is_not_held_against_a_shader(gpu: NativeGpu) -> None:
    class Broken(CountingGpu):
        async def pipeline(self, *_: object) -> int:
            raise GpuError("pipeline", "the device is busy")

    backend = WebGpuBackend(Broken(gpu, lambda *_: False))  # type: ignore[arg-type]
    with pytest.raises(GpuError, match="busy"):
        await backend.prepare(linear_program(), backend.store(()))
    assert not backend.choices.failed


async def test_a_choice_is_kept_for_its_signature_and_machine_only(gpu: NativeGpu) -> None:
    store, adapter = MemoryRemembered(), gpu.adapter
    call, other = linear_call(), linear_call(cols=28)
    rivals = candidates(call, adapter)
    choices = await Choices.open(store, adapter)
    assert select(call, adapter, choices).variant == rivals[0].variant
    choices.note_tuned(call, rivals[3], [(k, 1.0) for k in rivals])
    await choices.save()
    again = await Choices.open(store, adapter)
    assert select(call, adapter, again).variant == rivals[3].variant != rivals[0].variant
    assert again.is_tuned(call, rivals)
    assert select(other, adapter, again).variant == rivals[0].variant
    assert not again.is_tuned(other, candidates(other, adapter))
    for change in ({"identity": adapter.identity + "x"},):
        elsewhere = await Choices.open(store, replace(adapter, **change))
        assert not elsewhere.tuned


def test_the_key_changes_with_all_that_could_change_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from bascule.backend.adapter import WANTED_LIMITS
    from bascule.backend.webgpu import choices as module
    from bascule.backend.webgpu.gpu_native import _dashed, _describe

    info = {name: name for name in ("vendor", "architecture", "device", "description")}
    info |= {"backend_type": "Vulkan", "adapter_type": "CPU"}
    limits = {_dashed(name): 7 for name in WANTED_LIMITS}

    def key(change: Mapping[str, str] | None = None, limit: int = 7, *more: str) -> str:
        changed = {**limits, "max-buffer-size": limit}
        version = more[1] if len(more) > 1 else "0.32"
        return machine_key(_describe({**info, **(change or {})}, changed, list(more[:1]), version))

    results = [key(), key(None, 8), key(None, 7, "subgroups"), key(None, 7, "", "0.33")]
    results += [
        key({name: "other"}) for name in ("vendor", "architecture", "device", "description")
    ]
    monkeypatch.setattr(module, "__version__", "99")
    results.append(key())
    assert len(set(results)) == len(results)


async def test_damaged_or_hostile_choices_are_ignored(gpu: NativeGpu) -> None:
    call, adapter = linear_call(), gpu.adapter
    rivals = candidates(call, adapter)
    store = MemoryRemembered()
    choices = await Choices.open(store, adapter)
    choices.note_tuned(call, rivals[2], [(k, 1.0) for k in rivals])
    choices.note_failure(rivals[4], [(1, "planted")])
    await choices.save()
    key = f"choices {machine_key(adapter)}"
    sound = await store.get(key)
    assert sound is not None
    name = signature(call)

    def with_tuned(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        entry = copy.deepcopy(sound)
        change(entry["tuned"][name])
        return entry

    digest = rivals[2].digest
    spoiled: list[dict[str, Any]] = [
        {},
        {"tuned": [], "failed": 3},
        {"tuned": {name: None}, "failed": {digest: None}},
        {"tuned": {name: {"chosen": 3, "times": {}}}, "failed": {digest: {"variant": 1}}},
        with_tuned(lambda t: t.update(chosen="linear_block 3x3")),
        with_tuned(lambda t: t.update(chosen="quantum")),
        with_tuned(lambda t: t["times"][rivals[2].variant].update(digest="changed")),
        with_tuned(lambda t: t["times"][rivals[2].variant].update(ms="fast")),
        with_tuned(lambda t: t["times"][rivals[2].variant].update(ms=float("nan"))),
        with_tuned(lambda t: t["times"][rivals[2].variant].update(ms=-1)),
        with_tuned(lambda t: t["times"].clear()),
        with_tuned(lambda t: t.update(times=[1])),
    ]
    for entry in spoiled:
        await store.put(key, entry)
        result = await Choices.open(store, adapter)
        assert select(call, adapter, result).variant == rivals[0].variant, entry
        assert not result.is_tuned(call, rivals)
    await store.put(key, sound)
    assert select(call, adapter, await Choices.open(store, adapter)).variant == rivals[2].variant


async def test_a_changed_shader_is_no_longer_the_failed_one(
    gpu: NativeGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, adapter = linear_call(), gpu.adapter
    rivals = candidates(call, adapter)
    choices = Choices()
    choices.note_failure(rivals[0], [(1, "planted")])
    assert select(call, adapter, choices).variant == rivals[1].variant

    def edited(c: Call, a: Any) -> Any:
        return [lambda k=k: _edited(k) for k in rivals]

    monkeypatch.setitem(table._ROWS, "linear", edited)
    assert select(call, adapter, choices).variant == rivals[0].variant


def _edited(kernel: Kernel) -> Kernel:
    return replace(kernel, linked=replace(kernel.linked, wgsl=kernel.wgsl + "\n// edited"))


async def test_the_default_comes_first_and_variants_have_names_of_their_own(
    gpu: NativeGpu,
) -> None:
    from tests.shaders.catalogue import _calls

    counts: dict[str, int] = {}
    for kind in KINDS:
        adapter = disguise(gpu.adapter, kind)
        for call in _calls().calls:
            rivals = candidates(call, adapter)
            assert select(call, adapter).key == rivals[0].key
            assert len({k.variant for k in rivals}) == len(rivals)
            assert len({k.digest for k in rivals}) == len(rivals)
            counts[call.op] = max(counts.get(call.op, 0), len(rivals))
            for kernel in rivals:
                lanes = kernel.constants
                wide = lanes.get("LANES_X", 1) * lanes.get("LANES_Y", 1) * lanes.get("WORKGROUP", 1)
                assert wide <= adapter.limits["maxComputeInvocationsPerWorkgroup"]
    assert counts["linear"] >= 8
    assert counts["attention"] >= 6
    assert counts["layer_norm"] >= 4
    assert counts["l2_normalise"] == 2
    assert counts["add"] == 1


# rows, cols, inner around the edges of the widest and the tallest workgroups.
EDGES = [(1, 1, 4), (31, 65, 16), (64, 64, 8), (129, 257, 12), (257, 513, 8)]


@pytest.mark.parametrize("shape", EDGES, ids=str)
async def test_every_candidate_of_linear_computes_the_same(
    gpu: NativeGpu, rng: np.random.Generator, shape: tuple[int, int, int]
) -> None:
    rows, cols, inner = shape
    inputs = [normal(rng, rows, inner), normal(rng, cols, inner), normal(rng, cols)]
    tolerance = sum_tolerance(inner)
    await check_all(gpu, "linear", inputs, tolerance=tolerance, activation="none")


@pytest.mark.parametrize("tokens", [1, 16, 33, 65])
async def test_every_candidate_of_the_others_computes_the_same(
    gpu: NativeGpu, rng: np.random.Generator, tokens: int
) -> None:
    lengths = np.array([tokens, max(1, tokens // 2)], np.uint32)
    qkv = normal(rng, 2, tokens, 72)
    await check_all(gpu, "attention", [qkv, lengths], tolerance=2e-5, heads=3)
    x = normal(rng, tokens, 70)
    rows = [x, normal(rng, 70), normal(rng, 70), normal(rng, tokens, 70)]
    await check_all(gpu, "layer_norm", rows, tolerance=2e-5, eps=1e-6)
    await check_all(gpu, "l2_normalise", [x], tolerance=1e-5, eps=1e-12)


async def check_all(gpu: NativeGpu, op: str, inputs: list[Any], **how: Any) -> None:
    """`check_op` with each candidate in turn taken as if it were the default."""
    real, count, at = table._ROWS[op], 1, 0
    with pytest.MonkeyPatch.context() as patch:
        while at < count:

            def rotated(call: Call, adapter: Any, at: int = at) -> Any:
                nonlocal count
                makers = list(real(call, adapter))
                count = len(makers)
                return [makers[at]]

            patch.setitem(table._ROWS, op, rotated)
            await check_op(gpu, "software", op, inputs, **how)
            at += 1
    assert count > 1


async def test_two_who_meet_the_same_failure_both_go_on(gpu: NativeGpu) -> None:
    counting = CountingGpu(gpu, refuse_block_8x8)
    backend = WebGpuBackend(counting)  # type: ignore[arg-type]
    made = await asyncio.gather(
        *(backend.prepare(linear_program(cols=c), backend.store(())) for c in (24, 28, 32))
    )
    assert sum(refuse_block_8x8(label, dict(c)) for label, c in counting.tried) == 1
    for executable in made:
        executable.close()
