"""What 4-bit and 8-bit weights cost MiniLM: size, error, embeddings and ranking against float32.

    .venv/bin/python bench/quantization.py [--tier webgpu] [--model all-MiniLM-L6-v2]

Prints two tables and writes out/bench-quantization.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule.backend.quantize import QUANTIZED  # noqa: E402
from bench.quality import TEXTS, quality  # noqa: E402

# Weights of one kind, by a part of their names; the first that fits.
KINDS = {
    "word_embeddings": "word embeddings",
    "qkv": "query, key, value",
    "attention.output": "attention output",
    "intermediate": "inner layer",
    "output": "outer layer",
}
FORMATS = (None, *reversed(QUANTIZED))
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="auto")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    options = parser.parse_args()
    result = asyncio.run(measure(options.model, options.tier))
    show(result)
    out = ROOT / "out" / "bench-quantization.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    console.print(f"All figures: {out.relative_to(ROOT)}")


async def measure(model: str, tier: str, rounds: int = 3) -> dict[str, Any]:
    """Every format on one device; times are medians, the formats in turn."""
    opened = await bascule.open_device(tier)
    gpu: Any = getattr(opened.backend, "gpu", None)
    results: dict[str, Any] = {"device": opened.backend.device_name}
    models: dict[str, Any] = {}
    for format in FORMATS:
        name, peak = format or "f32", 0

        def notify(_: bascule.Progress) -> None:
            nonlocal peak
            peak = max(peak, gpu.allocated_nbytes if gpu else 0)

        before = gpu.allocated_nbytes if gpu else 0
        made = await opened.load(model, quantize=format, progress=notify)
        models[name] = made
        results[name] = {
            "nbytes": made.weights.nbytes,
            "peak_nbytes": peak - before,
            "load_ms": made.stats["load_ms"],
            "weights_ms": made.stats["weights_ms"],
            "embed_ms": [],
            "report": made.quantization.as_json() if made.quantization else None,
        }
    embeddings: dict[str, Any] = {}
    for name, made in models.items():
        embeddings[name] = await made.embed(TEXTS)
    for _ in range(rounds):
        for name, made in models.items():
            began = perf_counter()
            await made.embed(TEXTS[0])
            results[name]["embed_ms"].append(1e3 * (perf_counter() - began))
    for name, made in models.items():
        results[name]["quality"] = asdict(quality(embeddings[name], embeddings["f32"]))
        made.close()
    opened.backend.close()
    return results


def show(found: dict[str, Any]) -> None:
    """The tables."""
    console.print(found["device"])
    names = [name for name in found if name != "device"]
    table = Table(*["weights", "MB", "peak MB", "load ms", "one text ms"])
    for name in ("cosine mean", "cosine min", "Spearman", "same nearest"):
        table.add_column(name)
    for name in names:
        one = found[name]
        numbers = [f"{number:.4f}" for number in one["quality"].values()]
        sizes = [f"{one[key] / 1e6:.1f}" for key in ("nbytes", "peak_nbytes")]
        times = [f"{one['load_ms']:,.0f}", f"{median(one['embed_ms']):,.0f}"]
        table.add_row(name, *sizes, *times, *numbers)
    console.print(table)
    errors = Table("relative error, %", *KINDS.values())
    for name in names[1:]:
        kinds: dict[str, list[float]] = {}
        for tensor in found[name]["report"]["tensors"]:
            if not tensor["kept"]:
                kind = next(kind for kind in KINDS if kind in tensor["name"])
                kinds.setdefault(kind, []).append(100 * tensor["relative_error"])
        errors.add_row(name, *(spread(kinds[kind]) for kind in KINDS))
    console.print(errors)


def spread(numbers: list[float]) -> str:
    """The least and the largest."""
    minimum, maximum = f"{min(numbers):.2f}", f"{max(numbers):.2f}"
    return minimum if minimum == maximum else f"{minimum} to {maximum}"


if __name__ == "__main__":
    main()
