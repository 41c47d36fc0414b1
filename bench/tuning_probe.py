"""What tuning gains where this runs: natively, and in a page, to which this very text is sent.

Two devices, one tuned, run in turn, so that a machine whose speed drifts drifts for both.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from bascule import open_device
from bascule.tasks.buckets import Bucket

SHAPES = (16, 128)


async def measure(model: str, budget_s: float, rounds: int, rounds_s: float) -> dict[str, Any]:
    """At most `rounds` rounds, fewer where they take longer than `rounds_s` together."""
    # "bridge" is one token: a text of n - 2 of them has n tokens with [CLS] and [SEP].
    texts = {tokens: " ".join(["bridge"] * (tokens - 2)) for tokens in SHAPES}
    plain = await (await open_device("webgpu", remember=False)).load(model)
    tuned = await (await open_device("webgpu", remember=False)).load(model)
    backend: Any = tuned._backend
    programs = [tuned._settings.program(Bucket(1, tokens)) for tokens in SHAPES]
    report = await backend.tune(programs, budget_s=budget_s)
    tuned._prepare_anew()
    times: dict[str, list[float]] = {}
    started = time.perf_counter()
    for number in range(rounds + 1):
        if number > 1 and time.perf_counter() - started > rounds_s:
            break
        for tokens, text in texts.items():
            for name, contestant in (("before", plain), ("after", tuned)):
                began = time.perf_counter()
                result = await contestant.embed(text)
                ms = 1e3 * (time.perf_counter() - began)
                if number:  # the first round warms up
                    times.setdefault(f"1x{tokens} {name}", []).append(ms)
                elif name == "before":
                    expected = result
                else:
                    assert float((result * expected).sum()) > 0.9999  # both of length 1
    device = tuned.device_name
    for one in (plain, tuned):
        one.close()
        one._backend.close()
    return {
        "device": device,
        "medians_ms": {name: statistics.median(ms) for name, ms in times.items()},
        "times_ms": times,
        "report": report.as_json(),
    }
