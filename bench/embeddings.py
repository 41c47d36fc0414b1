"""Embeddings and matrix products beside peers: one run, one Chromium, contestants in turn.

    .venv/bin/python bench/embeddings.py [--quick]

Installs its peers first (npm packages into bench/node_modules, Python ones into .venv). Prints
medians and ratios, and writes out/bench-embeddings.json. bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule.base.folders import models_folder  # noqa: E402
from bascule.server.app import create_app  # noqa: E402
from bascule.server.run import pyodide_folder, running  # noqa: E402
from e2e.conftest import serving, settled  # noqa: E402
from e2e.engines import Page, chromium, wait_for  # noqa: E402
from tests.goldens import cosines  # noqa: E402

BENCH, OUT = ROOT / "bench", ROOT / "out"
MODEL = models_folder() / "all-MiniLM-L6-v2"
SHAPES = [(1, 16), (1, 128), (32, 128)]
SIDE = 512
# "bridge" is one token: a text of n - 2 of them has n tokens with [CLS] and [SEP].
WORD = "bridge"
console = Console(width=110)


def install_npm_peers() -> None:
    """Visible, and nothing where they are already there."""
    wanted = json.loads((BENCH / "package.json").read_text())["dependencies"]
    if not all((BENCH / "node_modules" / name).is_dir() for name in wanted):
        console.print("Installing the peers' npm packages ...")
        subprocess.run(["npm", "install", "--no-audit", "--no-fund"], cwd=BENCH, check=True)


def install_peers() -> None:
    """The npm packages, and the Python ones into .venv."""
    install_npm_peers()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "-r",
        str(BENCH / "requirements.txt"),
    ]
    subprocess.run(install, check=True)


def flops(batch: int, tokens: int) -> float:
    """Multiplications and additions of a MiniLM pass: linear layers and attention."""
    hidden, inner, layers = 384, 1536, 6
    linear = 2 * (4 * hidden * hidden + 2 * hidden * inner)
    return layers * batch * tokens * (linear + 4 * tokens * hidden)


def text_of(tokens: int) -> str:
    return " ".join([WORD] * (tokens - 2))


class Contest:
    """Times contestants in turn, a round each, and keeps every figure."""

    def __init__(self) -> None:
        self.times: dict[str, dict[str, list[float]]] = {}

    def run(
        self, event: str, contestants: dict[str, Callable[[], list[float]]], rounds: int
    ) -> None:
        for _ in range(rounds):
            for name, once in contestants.items():
                self.times.setdefault(event, {}).setdefault(name, []).extend(once())
        medians = {n: statistics.median(t) for n, t in self.times[event].items()}
        result = ", ".join(f"{name} {ms:.1f} ms" for name, ms in medians.items())
        console.print(f"  {event}: {result}")

    def median(self, event: str, name: str) -> float | None:
        result = self.times.get(event, {}).get(name)
        return statistics.median(result) if result else None


def browser_contest(contest: Contest, shapes: list[tuple[int, int]], facts: dict[str, Any]) -> None:
    with sync_playwright() as playwright, serving() as site:
        peers = {"peers": BENCH / "node_modules", "bench": BENCH, "onnx": OUT}
        with chromium(playwright, "chromium", webgpu=True) as engine, served(peers) as extra:
            tiers = ("webgpu", "wasm", "cpu")
            pages = {tier: ours(engine.new_page(), site.url, tier) for tier in tiers}
            lab = engine.new_page()
            lab.open(f"{site.url}/lab/")
            wait_for(lab, "globalThis.lab")
            peer = engine.new_page()
            peer.open(f"{extra}/bench/")
            open_peers(peer)
            embeddings_in_page(contest, shapes, pages, peer, facts)
            matmul_in_page(contest, lab, peer)


def served(folders: dict[str, Path]) -> AbstractContextManager[str]:
    """A second site for the peers, without isolation: they run one thread like us."""
    app = create_app(
        models=models_folder(), pyodide=pyodide_folder(), isolated=False, extra=folders
    )
    return running(app)


def ours(page: Page, url: str, tier: str) -> Page:
    page.open(f"{url}/?tier={tier}")
    assert settled(page) == "ready"
    return page


def open_peers(page: Page) -> None:
    page.run(
        """async () => {
          globalThis.peers = await import("/bench/peers.js");
          globalThis.open = {};
          for (const provider of ["webgpu", "wasm"]) {
            open[provider] = await peers.ort(provider, "/onnx/minilm.onnx");
          }
          open.matmul = await peers.ort("webgpu", "/onnx/matmul.onnx");
        }"""
    )


def embeddings_in_page(
    contest: Contest,
    shapes: list[tuple[int, int]],
    pages: dict[str, Page],
    peer: Page,
    facts: dict[str, Any],
) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    for batch, tokens in shapes:
        ids = tokenizer.encode(text_of(tokens)).ids
        assert len(ids) == tokens
        rows: dict[str, list[float]] = {}

        def run_ours(page: Page, name: str) -> list[float]:
            result = page.run(
                """async (texts) => {
                  const { data, ms } = await bascule.embed(texts);
                  return { ms, row: Array.from(data.slice(0, 384)) };
                }""",
                [text_of(tokens)] * batch,  # noqa: B023
            )
            rows[name] = result["row"]  # noqa: B023
            return [result["ms"]]

        def run_ort(provider: str, repeats: int) -> list[float]:
            result = peer.run(
                "([p, b, t, ids, n]) => peers.ortEmbed(open[p], b, t, ids, n)",
                [provider, batch, tokens, ids, repeats],  # noqa: B023
            )
            rows[f"ort {provider}"] = result["row"]  # noqa: B023
            return result["times"]

        big = batch * tokens > 1000
        if not big:  # first runs compile and allocate
            for tier, page in pages.items():
                run_ours(page, tier)
            run_ort("webgpu", 1)
            run_ort("wasm", 1)
        contest.run(
            f"page {batch}x{tokens}",
            {
                "bascule webgpu": lambda: run_ours(pages["webgpu"], "webgpu"),
                "bascule wasm": lambda: run_ours(pages["wasm"], "wasm"),
                "bascule cpu": lambda: run_ours(pages["cpu"], "cpu"),
                "ort-web webgpu": lambda: run_ort("webgpu", 1),
                "ort-web wasm": lambda: run_ort("wasm", 1),
            },
            rounds=1 if big else 5 if tokens <= 16 else 3,
        )
        for name, row in rows.items():
            assert cosines([row], [rows["cpu"]])[0] > 0.9999, f"{name} computes something else"
    stats = pages["webgpu"].run("() => bascule.stats()")
    facts["weights_nbytes"] = stats["weights_nbytes"]
    facts["page_peak_chunk_nbytes"] = stats["peak_chunk_nbytes"]
    facts["page_gpu_nbytes"] = stats["gpu_nbytes"]
    facts |= pass_cost(pages["webgpu"])


def pass_cost(page: Page) -> dict[str, float]:
    """Python's own time (median) and calls a pass of 16 tokens, tape built."""
    result = page.run(
        """async (text) => {
          await bascule.embed([text]);
          const seen = [await bascule.stats()];
          for (let i = 0; i < 20; i++) {
            await bascule.embed([text]);
            seen.push(await bascule.stats());
          }
          return { host: seen.slice(1).map((stats, i) => stats.host_ms - seen[i].host_ms),
                   calls: (seen[20].crossings - seen[0].crossings) / 20 };
        }""",
        text_of(16),
    )
    return {
        "python_us_per_pass": 1e3 * statistics.median(result["host"]),
        "crossings_per_pass": result["calls"],
    }


MATMUL = f"""
import json, time
import numpy as np
from bascule.backend.webgpu.backend import WebGpuBackend
from bascule.backend.webgpu.gpu_browser import open_browser
from bascule.program.compile import freeze
from bascule.program.graph import Graph
if "matmul" not in globals():
    backend = WebGpuBackend(await open_browser())
    graph = Graph("matmul")
    a, b = graph.input("a", ({SIDE}, {SIDE})), graph.input("b", ({SIDE}, {SIDE}))
    graph.output(graph.call("linear", a, b, activation="none"))
    matmul = await backend.prepare(freeze(graph), backend.store(()))
    half = np.full(({SIDE}, {SIDE}), 0.5, np.float32)
    await matmul.run({{}}, {{"a": half, "b": half}})
began = time.perf_counter()
found = await matmul.run({{}}, {{"a": half, "b": half}})
spent = time.perf_counter() - began
assert (next(iter(found.values())) == {SIDE} / 4).all()
json.dumps(1e3 * spent)
"""
NUMPY = f"""
import json, time
import numpy as np
half = np.full(({SIDE}, {SIDE}), 0.5, np.float32)
began = time.perf_counter()
half @ half
json.dumps(1e3 * (time.perf_counter() - began))
"""


def matmul_in_page(contest: Contest, lab: Page, peer: Page) -> None:
    def in_lab(code: str) -> list[float]:
        return [json.loads(lab.run("(code) => lab.run(code)", code))]

    contestants = {
        "bascule webgpu": lambda: in_lab(MATMUL),
        "numpy in Pyodide": lambda: in_lab(NUMPY),
        "ort-web webgpu": lambda: peer.run(f"() => peers.ortMatmul(open.matmul, {SIDE}, 1)"),
        "jax-js webgpu": lambda: peer.run(f"() => peers.jaxMatmul('webgpu', {SIDE}, 1)"),
        "jax-js wasm": lambda: peer.run(f"() => peers.jaxMatmul('wasm', {SIDE}, 1)"),
    }
    for name, once in list(contestants.items()):
        try:
            once()  # compiles
        except Exception as error:  # a peer that does not run here is reported, not hidden
            console.print(f"  {name} does not run here: {str(error).splitlines()[0][:90]}")
            del contestants[name]
    contest.run(f"page matmul {SIDE}", contestants, rounds=5)


def native_contest(contest: Contest, shapes: list[tuple[int, int]]) -> None:
    asyncio.run(_native_contest(contest, shapes))


async def _native_contest(contest: Contest, shapes: list[tuple[int, int]]) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    session = onnxruntime.InferenceSession(OUT / "minilm.onnx", options)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.no_padding()
    models = {t: await bascule.load("all-MiniLM-L6-v2", tier=t) for t in ("webgpu", "cpu")}
    for batch, tokens in shapes:
        ids = np.array([tokenizer.encode(text_of(tokens)).ids] * batch, np.int64)
        feed = {"ids": ids, "mask": np.ones_like(ids)}
        texts = [text_of(tokens)] * batch
        event = f"native {batch}x{tokens}"
        times = contest.times.setdefault(event, {})
        big = batch * tokens > 1000
        for round_number in range(2 if big else 6):
            results: dict[str, np.ndarray] = {}
            for tier, model in models.items():
                began = time.perf_counter()
                results[tier] = await model.embed(texts)
                spent = 1e3 * (time.perf_counter() - began)
                if round_number:
                    times.setdefault(f"bascule {tier}", []).append(spent)
            began = time.perf_counter()
            results["ort"] = session.run(None, feed)[0]
            if round_number:
                times.setdefault("onnxruntime", []).append(1e3 * (time.perf_counter() - began))
            for name, rows in results.items():
                assert (cosines(rows, results["cpu"]) > 0.9999).all(), name
        result = ", ".join(f"{n} {statistics.median(t):.1f} ms" for n, t in times.items())
        console.print(f"  {event}: {result}")
    for model in models.values():
        model.close()


def show(contest: Contest, shapes: list[tuple[int, int]], facts: dict[str, Any]) -> None:
    table = Table(
        title="Milliseconds a pass (median), and how many times as long as ours on WebGPU"
    )
    for column in ("event", "contestant", "ms", "ratio", "GFLOP/s", "times the floor"):
        table.add_column(column, justify="left" if column in ("event", "contestant") else "right")
    rate = {
        where: 2 * SIDE**3 / (contest.median(f"page matmul {SIDE}", "bascule webgpu") or 1) / 1e6
        for where in ("page",)
    }
    for event, times in contest.times.items():
        base = contest.median(event, "bascule webgpu")
        for name in times:
            ms = contest.median(event, name) or 0.0
            work = (
                2.0 * SIDE**3
                if "matmul" in event
                else flops(*map(int, event.split()[1].split("x")))
            )
            floor = work / rate["page"] / 1e6
            over = (
                f"{ms / floor:.2f}" if event.startswith("page") and name == "bascule webgpu" else ""
            )
            ratio = f"{ms / base:.2f}" if base else ""
            table.add_row(event, name, f"{ms:.1f}", ratio, f"{work / ms / 1e6:.2f}", over)
    console.print(table)
    console.print(
        f"Floor: the pass's operations at the matrix product's own rate in the page "
        f"({rate['page']:.2f} GFLOP/s); {shapes[0][0]}x{shapes[0][1]} reads "
        f"{facts['weights_nbytes'] / 1e6:.0f} MB of weights a pass at most."
    )
    for name, value in facts.items():
        console.print(
            f"  {name}: {value:,.1f}" if isinstance(value, float) else f"  {name}: {value:,}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave out 32x128 (minutes a pass)")
    shapes = SHAPES[:2] if parser.parse_args().quick else SHAPES
    install_peers()
    from bench.make_onnx import build, build_matmul

    OUT.mkdir(exist_ok=True)
    console.print("Building the peers' model file ...")
    build(MODEL, OUT / "minilm.onnx")
    build_matmul(SIDE, OUT / "matmul.onnx")
    contest, facts = Contest(), dict[str, Any]()
    console.print("Native ...")
    native_contest(contest, shapes)
    console.print("In Chromium ...")
    browser_contest(contest, shapes, facts)
    show(contest, shapes, facts)
    result = {"machine": platform.machine(), "cores": os.cpu_count(), "facts": facts}
    (OUT / "bench-embeddings.json").write_text(
        json.dumps({**result, "ms": contest.times}, indent=1)
    )


if __name__ == "__main__":
    main()
