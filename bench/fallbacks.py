"""What FallbackManager's operations cost within a memory budget: time, as a ratio to the plain way.

    .venv/bin/python -m bench.fallbacks [TIER ...]

Each operation runs at once, then within 60, 30 and 10 percent of the bytes that it held so. A row
has the peak that the driver counted, or the bytes that a refusal names.
"""

from __future__ import annotations

import sys
from time import perf_counter
from typing import Any

import numpy as np

import bascule
from bascule.errors import LimitError

RNG = np.random.default_rng(0)
# A Safari whose table asks for no fallback: only the budget does.
BROWSER = {"name": "safari", "version": "26.0"}
SHARES = (0.6, 0.3, 0.1)
RUNS = 3


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def cases() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    """Label, operation, inputs and context."""
    attention = dict(zip(("query", "key", "value"), normal(3, 4, 512, 64), strict=True))
    heads = dict(zip(("query", "key", "value"), normal(3, 2, 256, 512), strict=True))
    caches = ("key_cache", "value_cache", "key", "value")
    cache = dict(zip(caches, (*normal(2, 4096, 16, 32), *normal(2, 4, 16, 32)), strict=True))
    product = {"a": normal(1024, 512), "b": normal(512, 1024)}
    table = {"ids": RNG.integers(0, 65536, (8, 64)), "table": normal(65536, 64)}
    image = {"image": normal(4, 224, 224, 3), "weight": normal(192, 16, 16, 3)}
    return [
        ("attention", "attention_compute", attention, {}),
        ("causal attention", "attention_compute", attention, {"causal": True}),
        ("multi-head attention", "multi_head_attention", heads, {"heads": 8}),
        ("matmul", "matmul", product, {}),
        ("large weight", "matmul", {"a": normal(16, 2048), "b": normal(2048, 2048)}, {}),
        ("4-bit matmul", "matmul_4bit", product, {}),
        ("embedding", "embedding_lookup", table, {}),
        ("KV cache", "kv_cache_update", cache, {"position": 9}),
        ("quantize", "quantize", {"tensor": normal(4096, 512)}, {}),
        ("features", "feature_extraction", image, {}),
    ]


def measure(
    device: bascule.Device, operation: str, inputs: Any, context: Any, budget: int | None = None
) -> tuple[float, int, str]:
    """The least of a few times in seconds, the peak in bytes, and how it was divided."""
    config = {"device": device, "memory_budget_nbytes": budget}
    with bascule.FallbackManager(BROWSER, config=config, memory_threshold=1.0) as manager:
        times: list[float] = []
        for _ in range(RUNS + 1):  # the first compiles
            began = perf_counter()
            manager.run_with_fallback(operation, inputs, context)
            times.append(perf_counter() - began)
        [memory] = manager.get_performance_metrics()["memory_usage"].values()
        taken = ", ".join(f"{each.strategy} {each.parts}" for each in manager.last_taken)
        return min(times[1:]), memory["peak_nbytes"], taken


def main(tiers: list[str]) -> None:
    for tier in tiers:
        device = bascule.sync(bascule.open_device(tier))
        print(f"{device!r}\n{'operation':22}{'budget':>12}{'peak':>12}{'time':>8}")
        for label, operation, inputs, context in cases():
            plain, whole, _ = measure(device, operation, inputs, context)
            print(f"{label:22}{'':>12}{whole:>12,}{1e3 * plain:>6.1f}ms")
            for share in SHARES:
                budget = int(share * whole)
                try:
                    spent, peak, taken = measure(device, operation, inputs, context, budget)
                except LimitError as error:
                    print(f"{'':22}{budget:>12,}  refused: {error.needs}", flush=True)
                    continue
                ratio = spent / plain
                print(f"{'':22}{budget:>12,}{peak:>12,}{ratio:>7.2f}x  {taken}", flush=True)
        device.close()


if __name__ == "__main__":
    main(sys.argv[1:] or ["webgpu"])
