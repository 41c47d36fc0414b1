"""Budgets of bytes in a page: models that share one, and a model that is held to one."""

from __future__ import annotations

import json

from e2e.engines import Page

SCRIPT = """
import asyncio
import json
import time

import js

import bascule

BUDGET = 560_000  # the models hold 93 and 505 KB: one of them at a time
FEW = {"max_new_tokens": 3, "sampling": bascule.Sampling(temperature=0)}
TEXTS = ["w4 w5", "w6"]

async def embed(model):
    return (await model.embed(TEXTS)).tolist()

async def generate(model):
    return (await model.generate("Hi", **FEW)).ids

def work_of(base):
    return {f"{base}/tiny-bert": embed, f"{base}/tiny-llama/tiny-q4_1.gguf": generate}

async def share(base):
    work = work_of(base)
    expected = {}
    for path, ask in work.items():
        async with await bascule.load(path, tier="webgpu") as model:
            expected[path] = await ask(model)
    started = time.perf_counter()
    paths = list(work) * 100  # 200 requests, each other one to the other model
    async with bascule.ResourcePool(BUDGET, tier="webgpu", low_memory_mode=False) as pool:
        tasks = [asyncio.ensure_future(pool.run(path, work[path])) for path in paths]
        await asyncio.sleep(0)
        for task in tasks[3::7]:
            task.cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        took_s = time.perf_counter() - started
        stats = pool.stats
        resident = len(pool.resident)
        before = n_weight_requests()
        reloaded = []
        for path in paths[:4]:  # which evict each other: all come back from the cache
            async with pool.use(path) as model:
                reloaded.append(await work[path](model) == expected[path])
                reloaded.append(model.stats["network_nbytes"] == 0)
        reloads, requests = pool.stats.loads - stats.loads, n_weight_requests() - before
    cancelled = [isinstance(each, asyncio.CancelledError) for each in found]
    equal = [each == expected[path] for each, path in zip(found, paths)]
    return json.dumps({
        "right": all(a != b for a, b in zip(cancelled, equal)), "cancelled": sum(cancelled),
        "peak": stats.peak_nbytes, "loads": stats.loads, "evictions": stats.evictions,
        "took_s": took_s, "resident": resident,
        "reloads": reloads, "requests": requests, "reloaded": reloaded,
    })

def n_weight_requests():
    fetched = [entry.name for entry in js.performance.getEntriesByType("resource")]
    return sum(name.endswith((".safetensors", ".gguf")) for name in fetched)

async def stream(base):
    found = {}
    for tier in ("webgpu", "wasm"):
        for path, ask in work_of(base).items():
            async with await bascule.load(path, tier=tier) as model:
                expected = await ask(model)
            async with await bascule.load(path, tier=tier, stream_weights=True) as model:
                before = n_weight_requests()
                equal = await ask(model) == expected
                share = model.backend.memory.by_kind["weights"] / model.weights.nbytes
                found[f"{ask.__name__} {tier}"] = [equal, n_weight_requests() - before, share]
    return json.dumps(found)

async def hold(base):
    folder = f"{base}/tiny-bert"
    async with await bascule.load(folder, tier="webgpu") as model:
        expected = await model.embed(TEXTS)
    plan = await bascule.WebGPUMemoryOptimizer(1 << 30).plan(folder)
    least = min(plan, key=lambda strategy: strategy.needed_nbytes)
    held = bascule.WebGPUMemoryOptimizer(least.needed_nbytes)
    async with await held.load(folder) as model:
        rows = await model.embed(TEXTS)
        peak = model.backend.memory.peak_nbytes
    try:
        await bascule.WebGPUMemoryOptimizer(least.needed_nbytes // 3).load(folder)
        refused = ""
    except bascule.errors.LimitError as error:
        refused = str(error)
    cosine = float((rows * expected).sum(-1).min())
    return json.dumps({
        "resident": plan[0].needed_nbytes, "least": least.needed_nbytes, "peak": peak,
        "name": held.chosen.name, "cosine": cosine, "refused": refused,
    })
"""


LIMIT = """
from bascule.backend.memory import MemoryBudget

async def limited():
    numbers = memoryview(bytes(400_000)).cast("f")
    async with await bascule.open_device("webgpu") as device:
        device.backend.limit_memory(MemoryBudget(300_000))
        try:
            await device.buffer(numbers)
            refused = ""
        except bascule.errors.GpuOutOfMemoryError as error:
            refused = str(error)
        held = device.memory().now_nbytes
        device.backend.limit_memory(None)
        buffer = await device.buffer(numbers)
        return json.dumps({"refused": refused, "held": held, "after": buffer.nbytes})

await limited()
"""


def test_models_share_a_budget_and_a_model_is_held_to_one(
    webgpu_engine: object, own_lab: Page
) -> None:
    del webgpu_engine
    own_lab.run("(code) => lab.run(code)", SCRIPT)
    origin = own_lab.run("() => location.origin")
    base = f"{origin}/goldens"
    result = json.loads(own_lab.run("(code) => lab.run(code)", f"await share({base!r})"))
    print(result)
    assert result["right"]
    assert result["cancelled"] == 29
    assert result["peak"] <= 560_000
    assert result["loads"] == result["evictions"] + 1 >= 2
    assert result["resident"] == 1
    assert result["reloads"] >= 3
    assert result["requests"] == 0
    assert all(result["reloaded"])
    streamed = json.loads(own_lab.run("(code) => lab.run(code)", f"await stream({base!r})"))
    print(streamed)
    for equal, n_requests, share in streamed.values():
        assert equal
        assert n_requests == 0
        assert share < 0.8
    held = json.loads(own_lab.run("(code) => lab.run(code)", f"await hold({base!r})"))
    print(held)
    assert held["peak"] <= held["least"] < held["resident"]
    assert held["cosine"] > 0.99
    assert f"{held['least']:,} bytes" in held["refused"]
    limited = json.loads(own_lab.run("(code) => lab.run(code)", LIMIT))
    assert "400,000 bytes" in limited["refused"]
    assert limited["held"] <= 300_000
    assert limited["after"] == 400_000
