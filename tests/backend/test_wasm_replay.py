"""Programs that are recorded once and replayed: memory that is lent on, states that move."""

from __future__ import annotations

import asyncio
import gc

import numpy as np
import pytest

from bascule.backend.arrivals import Arrivals
from bascule.backend.wasm import replay
from bascule.backend.wasm.backend import WasmBackend
from bascule.backend.wasm.kernels_native import NativeKernels
from bascule.backend.wasm.replay import Recorder
from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program


@pytest.fixture
def backend(kernels: NativeKernels) -> WasmBackend:
    return WasmBackend(kernels)


def mixed(rows: Dim) -> Program:
    """Kernels and numpy in turn, over values that live for one call and for many."""
    graph = Graph("mixed")
    x = graph.input("x", (rows, 12))
    weight = graph.parameter("w", (12, 24))
    early = graph.call("linear", graph.call("concat", x, x), weight, activation="none")
    y = early
    for _ in range(5):
        y = graph.call("concat", y, x)  # numpy's
        y = graph.call("linear", y, weight, None, x, activation="tanh")
        y = graph.call("l2_normalise", y, eps=1e-6)
        y = graph.call("activate", y, kind="gelu")
    graph.output(graph.call("add", y, early))
    graph.output(graph.call("concat", y, x, early))
    return freeze(graph)


async def test_each_run_is_numpy_s(backend: WasmBackend, rng: np.random.Generator) -> None:
    from bascule.backend.cpu import ReferenceBackend

    program = mixed(Dim("T", 9))
    weight = rng.standard_normal((12, 24)).astype(np.float32)
    made = []
    for one in (backend, ReferenceBackend()):
        store = one.store(program.parameters)
        store.write(store.targets["w"], 0, weight)
        made.append(await one.prepare(program, store))
    for rows in (3, 9, 9, 1, 3):  # the same sizes again, and back to earlier ones
        x = rng.standard_normal((rows, 12)).astype(np.float32)
        ours, theirs = [await e.run({"T": rows}, {"x": x}) for e in made]
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)
        kept = [array.copy() for array in ours.values()]
        await made[0].run({"T": rows}, {"x": x + 1})
        for array, before in zip(ours.values(), kept, strict=True):  # the caller's own
            np.testing.assert_array_equal(array, before)


async def test_two_runs_at_once_do_not_mix(
    backend: WasmBackend, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_TURN_S", 0.0)  # others have a turn after each step
    program = mixed(Dim("T", 9))
    store = backend.store(program.parameters)
    store.write(store.targets["w"], 0, rng.standard_normal((12, 24)).astype(np.float32))
    executable = await backend.prepare(program, store)
    inputs = [rng.standard_normal((n, 12)).astype(np.float32) for n in (4, 4, 7)]
    alone = [await executable.run({"T": len(x)}, {"x": x}) for x in inputs]
    both = await asyncio.gather(*(executable.run({"T": len(x)}, {"x": x}) for x in inputs))
    for one, other in zip(alone, both, strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(array, other[name])


async def test_a_wrong_input_is_refused(backend: WasmBackend) -> None:
    program = mixed(Dim("T", 9))
    executable = await backend.prepare(program, backend.store(program.parameters))
    with pytest.raises(InputError, match="shape"):
        await executable.run({"T": 3}, {"x": np.zeros((4, 12), np.float32)})


def test_memory_is_lent_on_but_never_while_it_is_held(kernels: NativeKernels) -> None:
    recorder = Recorder(kernels)
    one = recorder.empty((3, 5))
    view, address = np.asarray(one).reshape(-1)[2:], one.address
    del one
    gc.collect()
    assert recorder.empty((3, 5)).address != address
    del view
    gc.collect()
    assert recorder.empty((15,)).address == address
    assert recorder.empty((0, 4)).shape == (0, 4)


async def test_states_may_move(backend: WasmBackend, rng: np.random.Generator) -> None:
    graph = Graph("cached")
    slots = Dim("S", 64)
    cache = graph.state("cache", (slots, 16))
    angles, position = graph.state("angles", (300, 8)), graph.state("position", (1,), "u32")
    heads = {"heads": 1, "kv_heads": 1, "size": 8}
    qkv = graph.input("qkv", (1, 24))
    q = graph.call("rope_append", qkv, cache, angles, position, **heads, pairs="halves")
    graph.output(graph.call("cached_attention", q, cache, position, **heads, window=0))
    program = freeze(graph)

    states = backend.states(program.states, {"S": 4})
    executable = await backend.prepare(program, backend.store(()), states)
    turns = np.concatenate((np.ones((300, 4)), np.zeros((300, 4))), axis=1)  # no turn at all
    states.write("angles", 0, turns.astype(np.float32))
    rows = rng.standard_normal((6, 24)).astype(np.float32)
    for at, row in enumerate(rows):
        if at == 4:
            await states.resize({"S": 8})
        states.write("position", 0, np.array([at], np.uint32))
        result = await executable.run({"S": 8 if at >= 4 else 4}, {"qkv": row[None]})
        keys, values = rows[: at + 1, 8:16], rows[: at + 1, 16:]
        weights = np.exp(keys @ row[:8] / 8**0.5)
        expected = weights @ values / weights.sum()
        np.testing.assert_allclose(next(iter(result.values()))[0], expected, atol=1e-5)


async def test_a_run_waits_for_the_weights_that_it_reads(backend: WasmBackend) -> None:
    program = mixed(Dim("T", 2))
    store = backend.store(program.parameters)
    store.arrivals = Arrivals(["w"])
    executable = await backend.prepare(program, store)
    x = np.ones((1, 12), np.float32)
    run = asyncio.ensure_future(executable.run({"T": 1}, {"x": x}))
    await asyncio.sleep(0.05)
    assert not run.done()
    store.write(store.targets["w"], 0, np.eye(12, dtype=np.float32))
    store.arrivals.mark(["w"])
    result = await asyncio.wait_for(run, 10)
    np.testing.assert_array_equal(next(iter(result.values())).shape, (1, 12))
    assert np.isfinite(next(iter(result.values()))).all()


async def test_steps_in_a_row_take_turns_with_others(backend: WasmBackend) -> None:
    graph = Graph("sum")
    x = graph.input("x", (64,))
    graph.output(graph.call("add", x, x))
    executable = await backend.prepare(freeze(graph), backend.store(()))
    work = asyncio.ensure_future(
        executable.submit({}, {"x": np.zeros(64, np.float32)}, times=10**9)
    )
    await asyncio.sleep(0.05)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(work, 10)
