"""Arrays beside peers and the floor: one Chromium, contestants in turn, ratios.

    .venv/bin/python bench/arrays.py [--only chain,sum] [--elements 10000000] [--rounds 9]
    .venv/bin/python bench/arrays.py --torch FOLDER  # torch-pyodide's wheel and runtime.mjs

Installs the peers' npm packages first. Every contestant computes the same work on the same numbers
and reads three of the result, which are compared with numpy's. The floor of what moves memory is
the fastest copy of the same array that this page reached: read once, written once. Writes
out/bench-arrays.json. bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.embeddings import install_npm_peers, served  # noqa: E402
from e2e.conftest import Site, serving  # noqa: E402
from e2e.engines import Page, chromium, wait_for  # noqa: E402

BENCH, OUT = ROOT / "bench", ROOT / "out"
PROBE = BENCH / "arrays_probe.py"
LAB = "(code) => lab.run(code)"
CONTESTANTS = {
    "bascule webgpu": ("ours", "webgpu"),
    "jax-js webgpu": ("jax", "webgpu"),
    "tfjs webgpu": ("tf", "webgpu"),
    "bascule wasm": ("ours", "wasm"),
    "jax-js wasm": ("jax", "wasm"),
    "tfjs wasm": ("tf", "wasm"),
    "numpy": ("ours", "numpy"),
    "torch-pyodide webgpu": ("torch", "webgpu"),  # with --torch
}
# Whoever takes longer than this is timed twice only.
SLOW_MS, SLOW_ROUNDS = 1000, 2
LEFT_OUT = {
    ("fft", "tf"): "its kernel is a quadratic transform, or there is none",
    ("fft", "torch"): "it multiplies by a matrix of N x N",
}
# Bytes of an element that have to be moved, in those of a copy (8).
MOVED = {"copy": 1.0, "chain": 1.0, "sum": 0.5, "softmax": 1.0}
console = Console(width=180)
Once = Callable[[], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names of work, by commas")
    parser.add_argument("--elements", type=int, default=10_000_000)
    parser.add_argument("--largest-matmul", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--torch", type=Path, help="what torch-pyodide's own build has made")
    options = parser.parse_args()
    install_npm_peers()
    results: dict[str, dict[str, float]] = {}
    with sync_playwright() as playwright, serving() as site:
        folders = {"peers": BENCH / "node_modules", "bench": BENCH}
        with chromium(playwright, "chromium", webgpu=True) as engine, served(folders) as extra:
            lab, peer = engine.new_page(), engine.new_page()
            lab.open(f"{site.url}/lab/?pyodide=/pyodide/")
            wait_for(lab, "globalThis.lab")
            lab.run(LAB, PROBE.read_text())
            peer.open(f"{extra}/bench/")
            peer.run("async () => { globalThis.peers = await import('/bench/array-peers.js'); }")
            pages = {"ours": lab, "jax": peer, "tf": peer}
            if options.torch:
                pages["torch"] = open_torch(engine.new_page(), site, options.torch)
            for what, n in _work(options.elements, options.largest_matmul):
                if options.only and what not in options.only.split(","):
                    continue
                results[f"{what} {n:,}"] = contest(what, n, pages, options.rounds)
                peer.run("() => peers.forget()")
                for kind in ("ours", "torch"):
                    if kind in pages:
                        pages[kind].run(LAB, "forget()")
    show(results)
    OUT.mkdir(exist_ok=True)
    (OUT / "bench-arrays.json").write_text(json.dumps(results, indent=2))


def _work(elements: int, largest: int) -> list[tuple[str, int]]:
    sides = [n for n in (256, 512, 1024, 2048) if n <= largest]
    return [
        *((what, elements) for what in ("copy", "chain", "sum", "softmax")),
        *(("matmul", n) for n in sides),
        ("matvec", 2048),
        ("sort", 1_000_000),
        ("fft", 1 << 20),
        ("nbody", 1024),
    ]


def open_torch(page: Page, site: Site, folder: Path) -> Page:
    """A page whose Python has torch-pyodide; its runtime is no package of a registry."""
    (wheel,) = folder.glob("torch_pyodide-*.whl")
    for path in (wheel, folder / "runtime.mjs"):
        shutil.copy(path, site.extra)
    # Python that a snapshot has started has no JSPI, and torch-pyodide waits by it.
    page.open(f"{site.url}/lab/?pyodide=/pyodide/&micropip=1")
    wait_for(page, "globalThis.lab")
    install = f"""
import micropip
from pyodide.code import run_js
await micropip.install("{site.url}/extra/{wheel.name}", deps=False)
runtime = await run_js("import('{site.url}/extra/runtime.mjs')")
runtime.installTorchRuntime(run_js("globalThis"))
None
"""
    for code in (install, PROBE.read_text(), (BENCH / "torch_probe.py").read_text()):
        page.run(LAB, code)
    return page


def contest(what: str, n: int, pages: dict[str, Page], rounds: int) -> dict[str, float]:
    """Median milliseconds of each contestant; who fails or differs is printed and left out."""
    contestants: dict[str, Once] = {}
    for name, (kind, where) in CONTESTANTS.items():
        if kind not in pages or (what, kind) in LEFT_OUT:
            continue
        contestants[name] = _once(kind, where, what, n, pages[kind])
    heads: dict[str, Any] = {}
    for name, once in list(contestants.items()):
        try:
            heads[name] = once()["head"]  # compiles and uploads
        except Exception as error:  # a peer that does not run here is reported, not hidden
            console.print(f"  {what}: {name} does not run: {str(error).splitlines()[0][:100]}")
            del contestants[name]
    right = np.array(heads["numpy"])
    for name, head in heads.items():
        if not np.allclose(head, right, rtol=2e-3, atol=2e-3 * float(np.abs(right).max())):
            console.print(f"  {what}: {name} is wrong: {head} instead of {right.tolist()}")
            del contestants[name]
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, once in contestants.items():
            if len(times[name]) < SLOW_ROUNDS or min(times[name]) < SLOW_MS:
                times[name].append(once()["ms"])
    medians = {name: statistics.median(ms) for name, ms in times.items()}
    line = ", ".join(f"{name} {ms:.1f}" for name, ms in medians.items())
    console.print(f"{what} {n:,} (ms): {line}")
    return medians


def _once(kind: str, where: str, what: str, n: int, page: Page) -> Once:
    if kind in ("ours", "torch"):
        code = f"import json\njson.dumps(await once({where!r}, {what!r}, {n}))"
        return lambda: json.loads(page.run(LAB, code))
    call = f"([where, what, n]) => peers.{kind}Once(where, what, n)"
    return lambda: page.run(call, [where, what, n])


def show(found: dict[str, dict[str, float]]) -> None:
    """A table of milliseconds and ratios to Bascule on WebGPU; above 1 Bascule is ahead."""
    table = Table(title="Milliseconds, and times that of Bascule on the same kind of tier")
    names = [name for name in CONTESTANTS if any(name in row for row in found.values())]
    for column in ("work", *names, "x the floor"):
        table.add_column(column, justify="left" if column == "work" else "right")
    copies = [ms for work, row in found.items() if work.startswith("copy") for ms in row.values()]
    for work, row in found.items():
        cells: list[str] = []
        for name in names:
            base = row.get(
                "bascule wasm" if "wasm" in name or name == "numpy" else "bascule webgpu"
            )
            ms = row.get(name)
            result = "" if not ms or not base or "bascule" in name else f" ({ms / base:.1f}x)"
            cells.append("-" if ms is None else f"{ms:,.1f}{result}")
        share = MOVED.get(work.split()[0])
        ours = row.get("bascule webgpu")
        floor = f"{ours / (share * min(copies)):.2f}" if share and copies and ours else ""
        table.add_row(work, *cells, floor)
    console.print(table)


if __name__ == "__main__":
    main()
