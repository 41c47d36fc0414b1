"""What tuning gains: natively, in Chromium and in Firefox, before and after in the same run.

    .venv/bin/python bench/tuning.py [--budget SECONDS] [--rounds N] [--only PLACE]

Prints medians and what was chosen, and writes out/bench-tuning.json. In each browser it also visits
the demo page twice and prints what the second visit made early.
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

from bascule.base.folders import models_folder  # noqa: E402
from bench.tuning_probe import measure  # noqa: E402
from e2e.conftest import serving, settled  # noqa: E402
from e2e.engines import TIMEOUT_S, chromium, firefox, wait_for  # noqa: E402

MODEL = "all-MiniLM-L6-v2"
PROBE = Path(__file__).with_name("tuning_probe.py")
PLACES = ("native", "chromium", "firefox")
console = Console(width=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=120.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", choices=PLACES)
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for place in [options.only] if options.only else PLACES:
        console.print(f"Tuning {MODEL}, {place} ...")
        if place == "native":
            model = str(models_folder() / MODEL)
            # A coroutine made here: another thread's loop may still be Playwright's.
            results[place] = asyncio.run(
                measure(model, options.budget, options.rounds, options.budget)
            )
        else:
            results[place] = in_browser(place, options.budget, options.rounds)
        show(place, results[place])
    out = ROOT / "out" / "bench-tuning.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=2))
    console.print(f"All figures: {out.relative_to(ROOT)}")


def in_browser(place: str, budget_s: float, rounds: int) -> dict[str, Any]:
    start = chromium if place == "chromium" else firefox
    code = f"{PROBE.read_text()}\nimport json\n"
    code += f"json.dumps(await measure({MODEL!r}, {budget_s}, {rounds}, {budget_s}))"
    with (
        sync_playwright() as playwright,
        serving() as site,
        start(playwright, place, webgpu=True) as engine,
    ):
        page = engine.new_page()
        visits: list[dict[str, float]] = []
        for _ in range(2):
            page.open(f"{site.url}/?tier=webgpu")
            assert settled(page) == "ready"
            visits.append(page.run("() => bascule.stats()"))
        page.close()
        lab: Any = engine.new_page()
        lab.page.set_default_timeout(1000 * (TIMEOUT_S + 4 * budget_s))
        lab.open(f"{site.url}/lab/")
        wait_for(lab, "globalThis.lab")
        result: dict[str, Any] = json.loads(lab.run("(code) => lab.run(code)", code))
    keys = ("early_listed", "early_made", "early_ms", "pipelines_early", "load_ms")
    result["visits"] = [{key: visit[key] for key in keys} for visit in visits]
    return result


def show(place: str, found: dict[str, Any]) -> None:
    medians, report = found["medians_ms"], found["report"]
    table = Table("kind of call", "calls", "chosen", "ms", "default", "ms", "gain", title=place)
    for one in sorted(report["findings"], key=lambda f: -f["gain"]):
        times = one["times_ms"]
        row = (one["chosen"], f"{times[one['chosen']]:.2f}", one["default"])
        gain = (f"{times[one['default']]:.2f}", f"{one['gain']:.2f}")
        table.add_row(one["signature"].replace("[", r"\["), str(one["count"]), *row, *gain)
    console.print(table)
    console.print(f"{found['device']}: tuned in {report['spent_s']:.0f} s, ", end="")
    console.print(f"{len(report['skipped'])} kinds did not fit, {report['wrong'] or 'none'} wrong")
    for shape in dict.fromkeys(name.split()[0] for name in medians):
        before, after = medians[f"{shape} before"], medians[f"{shape} after"]
        console.print(f"  {shape}: {before:.0f} ms before, {after:.0f} after", end="")
        console.print(f" ({before / after:.2f} times as fast)")
    for number, visit in enumerate(found.get("visits", []), 1):
        console.print(f"  visit {number}: { {k: round(v) for k, v in visit.items()} }")


if __name__ == "__main__":
    main()
