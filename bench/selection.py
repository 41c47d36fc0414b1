"""What one selection costs, learned and cached; natively, and with --page in Chromium's Pyodide.

    .venv/bin/python bench/selection.py [--page] [--rounds N]

Prints the best of many rounds in microseconds, and as a multiple of a method call that does
nothing, which says something on a busy machine, too. Writes out/bench-selection.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.selection_probe import measure  # noqa: E402
from e2e.conftest import serving  # noqa: E402
from e2e.engines import chromium, wait_for  # noqa: E402

PROBE = Path(__file__).with_name("selection_probe.py")
BAR_US = 0.6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    results = {"native": asyncio.run(measure(options.rounds))}
    if options.page:
        results["chromium"] = in_chromium(options.rounds)
    for place, rows in results.items():
        nothing = next(iter(rows.values()))
        for name, us in rows.items():
            print(f"{place:9} {name:32} {us:7.3f} us  {us / nothing:5.1f} x")
    selected = results["native"]["a selection, learned and cached"]
    print(f"The bar is {BAR_US} us natively: {'held' if selected <= BAR_US else 'MISSED'}.")
    out = ROOT / "out" / "bench-selection.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2))


def in_chromium(rounds: int) -> dict[str, float]:
    code = f"{PROBE.read_text()}\nimport json\njson.dumps(await measure({rounds}))"
    with (
        sync_playwright() as playwright,
        serving() as site,
        chromium(playwright, "chromium", webgpu=True) as engine,
    ):
        page = engine.new_page()
        page.open(f"{site.url}/lab/")
        wait_for(page, "globalThis.lab")
        return json.loads(page.run("(code) => lab.run(code)", code))


if __name__ == "__main__":
    main()
