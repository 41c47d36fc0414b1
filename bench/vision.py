"""ViT-B/16 and CLIP ViT-B/32, natively: each tier beside its floor, and its memory.

    .venv/bin/python bench/vision.py [--rounds N] [--batch N] [--only TIER ...]

Weights are random ones of a fixed seed, in full size (out/bench-vision); the first run of each tier
does not count. The floor is the sum over a pass's calls of the longer of two times: its operations
at the rate of our own linear layer of 512 x 512 x 512 on that tier, and its bytes at the rate of a
copy, both measured in the same run. Prints the least times and writes out/bench-vision.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule import ImageModel, ImageTextModel  # noqa: E402
from bascule.device.loading import read_programs  # noqa: E402
from bascule.observe.roofline import measure_roofline  # noqa: E402
from bascule.program.ops import cost_of  # noqa: E402
from bascule.program.program import Program  # noqa: E402
from bench.vision_folders import clip_folder, vit_folder  # noqa: E402

OUT, TIERS = ROOT / "out", ("webgpu", "wasm", "cpu")
TEXT = " ".join(["cat"] * 14)  # 16 tokens with those at its ends: all of a bucket
console = Console(width=110)


@dataclass
class Row:
    """A model's pass on a tier; `peak_nbytes` by the driver's count, of all that it held."""

    model: str
    work: str
    tier: str
    ms: float
    floor_ms: float
    gflops: float
    weights_nbytes: int
    planned_nbytes: int
    peak_nbytes: int


Once = Callable[[], Awaitable[object]]


def floor_s(program: Program, flops_per_s: float, bytes_per_s: float) -> tuple[float, float]:
    """The least time of a pass, and its operations."""
    costs = [cost_of(call) for call in program.calls]
    each = [max(2 * c.multiply_adds / flops_per_s, c.nbytes / bytes_per_s) for c in costs]
    return sum(each), 2 * sum(c.multiply_adds for c in costs)


async def measured(folder: Path, tier: str, rounds: int, batch: int) -> list[Row]:
    """Load the model on a device of its own, so that the peak is the model's."""
    async with await bascule.open_device(tier) as device:
        roofline = await measure_roofline(device.backend, "linear")
    programs = await read_programs(str(folder))
    rows: list[Row] = []
    async with await bascule.load(folder, tier=tier) as model:
        assert isinstance(model, ImageModel | ImageTextModel)
        for name, (once, program) in _works(model, programs, batch).items():
            seconds = await _min_s(once, rounds)
            minimum, flops = floor_s(program, roofline.flops_per_s, roofline.bytes_per_s)
            rows.append(
                Row(
                    model=folder.name,
                    work=name,
                    tier=tier,
                    ms=1e3 * seconds,
                    floor_ms=1e3 * minimum,
                    gflops=flops / seconds / 1e9,
                    weights_nbytes=model.weights.nbytes,
                    planned_nbytes=program.planned_nbytes,
                    peak_nbytes=model.backend.memory.peak_nbytes,
                )
            )
    return rows


def _works(
    model: ImageModel | ImageTextModel, programs: list[Program], batch: int
) -> dict[str, tuple[Once, Program]]:
    """What is timed, each with its pass."""
    pixels = [*np.random.default_rng(3).integers(0, 256, (batch, 224, 224, 3), np.uint8)]
    seen = next(p for p in programs if _has(p, "pixels", batch))
    if isinstance(model, ImageModel):
        return {f"{batch} x image": (lambda: model.logits(pixels), seen)}
    read = next(p for p in programs if _has(p, "ids", 1, 16))
    return {
        "16 tokens": (lambda: model.embed_text(TEXT), read),
        f"{batch} x image": (lambda: model.embed_image(pixels), seen),
    }


def _has(program: Program, name: str, *sizes: int) -> bool:
    results = [value.limits[: len(sizes)] for value in program.inputs if value.name == name]
    return results == [sizes]


async def _min_s(once: Once, rounds: int) -> float:
    """Run once to compile, then return the least time: others may use the machine."""
    await once()
    times: list[float] = []
    for _ in range(rounds):
        began = perf_counter()
        await once()
        times.append(perf_counter() - began)
    return min(times)


def shown(rows: list[Row]) -> Table:
    """The rows as a table."""
    table = Table(title="Vision, natively: least times")
    for column in ("model", "work", "tier", "ms", "x the floor", "GFLOP/s", "weights", "peak, MB"):
        table.add_column(column)
    for row in rows:
        megabytes = [f"{n / 1e6:,.0f}" for n in (row.weights_nbytes, row.peak_nbytes)]
        ratio = f"{row.ms / row.floor_ms:.2f}"
        cells = (f"{row.ms:,.0f}", ratio, f"{row.gflops:.1f}", *megabytes)
        table.add_row(row.model, row.work, row.tier, *cells)
    return table


async def main() -> None:
    """Measure all, print and write it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=1, choices=(1, 2, 4, 8))
    parser.add_argument("--only", nargs="+", default=TIERS, choices=TIERS)
    options = parser.parse_args()
    folders = [make(OUT / "bench-vision") for make in (vit_folder, clip_folder)]
    rows: list[Row] = []
    for folder in folders:
        for tier in options.only:
            console.print(f"{folder.name} on {tier} ...")
            rows += await measured(folder, tier, options.rounds, options.batch)
    console.print(shown(rows))
    (OUT / "bench-vision.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    asyncio.run(main())
