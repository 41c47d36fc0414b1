"""The four levels of ComputeShaderManager, shader by shader: natively and in Chromium, in turn.

    .venv/bin/python bench/levels.py [--rounds N] [--calls N] [--only PLACE]

Prints the median time of a call at each level, its ratio to level 0 and the kernels that ran, and
writes out/bench-levels.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.levels_probe import measure  # noqa: E402
from e2e.conftest import serving  # noqa: E402
from e2e.engines import chromium, wait_for  # noqa: E402

PROBE = Path(__file__).with_name("levels_probe.py")
PLACES = ("native", "chromium")
LONGEST_MS = 10 * 60 * 1000
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=10, help="calls before a read")
    parser.add_argument("--only", choices=PLACES)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for place in [options.only] if options.only else PLACES:
        if place == "native":
            results[place] = asyncio.run(measure(options.rounds, options.calls))
        else:
            results[place] = in_chromium(options.rounds, options.calls)
        show(place, results[place])
    out = ROOT / "out" / "bench-levels.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2))
    console.print(f"All figures: {out.relative_to(ROOT)}")


def in_chromium(rounds: int, calls: int) -> dict[str, Any]:
    code = f"{PROBE.read_text()}\nimport json\njson.dumps(await measure({rounds}, {calls}))"
    with (
        sync_playwright() as playwright,
        serving() as site,
        chromium(playwright, "chromium", webgpu=True) as engine,
    ):
        lab: Any = engine.new_page()
        lab.page.set_default_timeout(LONGEST_MS)
        lab.open(f"{site.url}/lab/")
        wait_for(lab, "globalThis.lab")
        return json.loads(lab.run("(code) => lab.run(code)", code))


def show(place: str, found: dict[str, Any]) -> None:
    table = Table("shader", "level", "ms", "to level 0", "kernels", title=place)
    for name, levels in found["shaders"].items():
        for level, one in enumerate(levels):
            ratio = one["ms"] / levels[0]["ms"]
            kernels = ", ".join(one["variants"]).replace("[", r"\[")
            table.add_row(name, str(level), f"{one['ms']:.3f}", f"{ratio:.2f}", kernels)
    console.print(table)
    console.print(f"Device: {found['device']}")


if __name__ == "__main__":
    main()
