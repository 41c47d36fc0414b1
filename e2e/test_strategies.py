"""Each of the eight fallback strategies, in a page whose adapter has Safari's limits or lower."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from e2e.conftest import Site
from e2e.engines import Engine, Page
from e2e.limited_adapter import limited
from e2e.test_limited_adapter import lab

BINDING = 64 << 10
# A strategy each: an operation on a tier, what it is kept within, and the plain way beside it.
CODE = """
import json
import numpy as np
import bascule
from bascule.program.blocks import dequantize
from bascule.backend.quantize import quantize
from bascule.base.dtypes import BlockType
from bascule.errors import BasculeError
from bascule.compat.fallback.operation_runs import PieceRunner
from bascule.compat.fallback.operation_work import Request
from bascule.compat.fallback.operations import operation_named
from bascule.program.rewrites.rewrite import Limits

rng = np.random.default_rng(SEED)
normal = rng.standard_normal

def attend(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v

def as_blocks(matrix, kind):
    blocks, _ = quantize(BlockType[kind], np.ascontiguousarray(matrix, np.float32))
    return dequantize(BlockType[kind], blocks, matrix.size).reshape(matrix.shape).astype(float)

a, b = normal((4, 256)), normal((256, 128))
table, ids = normal((1024, 32)), rng.integers(0, 1024, (2, 9))
q, k, v = normal((3, 1, 40, 16))
heads = normal((3, 2, 17, 24))
split = [x.reshape(2, 17, 3, 8).swapaxes(1, 2) for x in heads]
caches, rows = normal((2, 64, 8, 32)), normal((2, 3, 8, 32))
after = caches.copy()
after[:, 5:8] = rows
image, kernel = normal((1, 37, 29, 3)), normal((5, 4, 4, 3))
seen = np.lib.stride_tricks.sliding_window_view(image, (4, 4), (1, 2))[:, ::2, ::2]
x, wide = normal((1, 64)), normal((64, 48))
names = ("key_cache", "value_cache", "key", "value")
CASES = {
    "layer_decomposition": ("matmul", {"a": a, "b": b}, {}, {}, a @ b),
    "chunked_embedding": ("embedding_lookup", {"ids": ids, "table": table}, {}, {}, table[ids]),
    "partitioned_kv_cache": (
        "kv_cache_update", dict(zip(names, (*caches, *rows))), {"position": 5}, {}, after,
    ),
    "chunked_attention": (
        "attention_compute", {"query": q, "key": k, "value": v}, {}, {"dispatch_work": 10_000},
        attend(q, k, v),
    ),
    "head_partitioning": (
        "multi_head_attention", dict(zip(("query", "key", "value"), heads)), {"heads": 3},
        {"dispatch_work": 10_000}, attend(*split).swapaxes(1, 2).reshape(2, 17, 24),
    ),
    "progressive_quantization": (
        "matmul", {"a": a, "b": b}, {}, {"weights_nbytes": 60_000}, a @ as_blocks(b.T, "Q8_0").T,
    ),
    "simplified_shader": (
        "shader_compilation", {"operation": "matmul_4bit", "inputs": {"a": x, "b": wide}}, {}, {},
        x @ as_blocks(wide.T, "Q4_1").T,
    ),
    "tiled_extraction": (
        "feature_extraction", {"image": image, "weight": kernel}, {"stride": 2},
        {"memory_budget_nbytes": 60_000}, np.einsum("byxcij,nijc->byxn", seen, kernel),
    ),
}

async def plainly(operation, inputs, context, backend):
    if operation == "shader_compilation":
        return "fine"  # there is no other way of it
    request = Request(operation_named(operation, "plainly"), inputs, context)
    runner = PieceRunner(backend, Limits())  # in one piece, without limits
    try:
        async with backend.turns.turn():
            await runner.run(request, request.operation.record(request))
    except BasculeError as error:
        return error.category
    finally:
        await runner.stop()
    return "fine"

told = {}
backend = (await bascule.open_device(TIER)).backend
for strategy, (operation, inputs, context, config, expected) in CASES.items():
    config = {"tier": TIER, "binding_nbytes": BINDING, **config}
    async with bascule.FallbackManager(config=config) as manager:
        found = await manager.run_with_fallback(operation, inputs, context)
        metrics = manager.get_performance_metrics()
        told[strategy] = {
            "taken": {each.strategy: each.parts for each in manager.last_applied},
            "off": float(np.abs(found - expected).max()),
            "plain": await plainly(operation, inputs, context, backend),
            **metrics["memory_usage"][operation],
            "activations": metrics["fallback_activations"],
            "elsewhere": metrics["wasm_fallbacks"],
        }
backend.close()
json.dumps(told)
"""
BINDS = ("layer_decomposition", "chunked_embedding", "partitioned_kv_cache")
SHORTENS = ("chunked_attention", "head_partitioning")
SAVES = ("progressive_quantization", "tiled_extraction")


@pytest.mark.one_engine
def test_each_strategy_on_every_tier(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/{limited(binding_nbytes=BINDING)}/lab/")
    seed = int.from_bytes(os.urandom(4))
    for tier in ("webgpu", "wasm", "cpu"):
        head = f"TIER, BINDING, SEED = {tier!r}, {BINDING}, {seed}\n"
        output = lab(page, head + CODE)
        print(f"{engine.name}, {tier}, seed {seed}: {output}")
        for strategy, result in output.items():
            assert result["off"] < 1e-4, (tier, strategy)
            assert result["elsewhere"] == 0
            if strategy != "simplified_shader" or tier == "webgpu":
                assert result["activations"] == 1, (tier, strategy)
                assert strategy in result["taken"], (tier, strategy)
        assert all(output[name]["taken"][name] > 1 for name in (*BINDS, *SHORTENS))
        # Where the limit is real the plain way fails.
        assert {output[name]["plain"] for name in BINDS} == {"gpu" if tier == "webgpu" else "fine"}
        assert all(output[name]["peak_nbytes"] < output[name]["plain_nbytes"] for name in SAVES)
