"""Text generation of SmolLM2-135M-Instruct beside llama.cpp: one run, contestants in turn.

    .venv/bin/python bench/generation.py [--quick] [--perplexity] [--llama-cpp]

The model must be there (bascule pull SmolLM2-135M-Instruct). Installs npm peers into
bench/node_modules; --llama-cpp also builds llama.cpp into out/llama-cpp. Prints medians, and
writes out/bench-generation.json. bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from math import exp
from pathlib import Path
from statistics import fmean

from playwright.sync_api import Error, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bascule.base.folders import models_folder  # noqa: E402
from bascule.errors import BasculeError  # noqa: E402
from bascule.server.app import create_app  # noqa: E402
from bascule.server.run import pyodide_folder, running  # noqa: E402
from bench.embeddings import BENCH, OUT, install_npm_peers  # noqa: E402
from bench.generation_table import Contest, as_json, bandwidth, console, held_nbytes, show  # noqa: E402
from bench.generators import (  # noqa: E402
    FILE,
    MODEL,
    Contestant,
    Loop,
    MissingError,
    Native,
    Ours,
    in_page,
    llama_cpp,
    native,
    wllama,
)
from e2e.engines import chromium, firefox  # noqa: E402
from tests.goldens import llama  # noqa: E402
from tests.text.vocabularies import real_metadata, tokenizer_of  # noqa: E402

PROMPT, NEW = 128, 48
# Each round has a prompt of its own, so that nobody finds the beginning of one in a cache.
GOLDEN = llama.perplexity()
REFERENCE = "native: Bascule, CPU tier"
LLAMA_CPP = OUT / "llama-cpp" / "bin" / "python"
Openers = dict[str, Callable[[], AbstractContextManager[Contestant]]]


def install_llama_cpp() -> None:
    """Compiles: ten minutes on two cores."""
    if not LLAMA_CPP.is_file():
        console.print("Building llama.cpp into out/llama-cpp ...")
        subprocess.run([sys.executable, "-m", "venv", LLAMA_CPP.parent.parent], check=True)
        package = [LLAMA_CPP, "-m", "pip", "install", "--quiet", "llama-cpp-python==0.3.36"]
        subprocess.run(package, check=True)


def prompt(number: int) -> list[int]:
    start = number * GOLDEN.window
    return GOLDEN.ids[start : start + PROMPT]


@contextmanager
def all_openers(python: Path) -> Iterator[Openers]:
    """How to open each contestant; browsers and servers live as long as this."""
    app = create_app(
        models=models_folder(),
        pyodide=pyodide_folder(),
        extra={"peers": BENCH / "node_modules", "bench": BENCH},
    )
    loop, cores = Loop(), os.cpu_count() or 1
    texts = tokenizer_of(real_metadata()).decode_bytes
    with (
        sync_playwright() as playwright,
        running(app) as url,
        chromium(playwright, "chromium", webgpu=True) as chrome,
        firefox(playwright, "firefox", webgpu=True) as fox,
    ):
        yield {
            REFERENCE: lambda: native("cpu", loop),
            "native: Bascule, WebGPU": lambda: native("webgpu", loop),
            f"native: llama.cpp, {cores} threads": lambda: llama_cpp(python, texts),
            "Chromium: Bascule, WebGPU": lambda: in_page(chrome, url, "webgpu"),
            "Chromium: Bascule, WASM, 1 thread": lambda: in_page(chrome, url, "wasm"),
            "Chromium: wllama, WASM, 1 thread": lambda: wllama(chrome, url, 1, texts),
            f"Chromium: wllama, WASM, {cores} threads": lambda: wllama(chrome, url, cores, texts),
            "Firefox: Bascule, WebGPU": lambda: in_page(fox, url, "webgpu"),
        }


def enter(stack: ExitStack, openers: Openers, contest: Contest) -> dict[str, Contestant]:
    """Open all and run each once, which compiles; who cannot is told and left out."""
    results: dict[str, Contestant] = {}
    for name, opener in openers.items():
        before = held_nbytes()
        try:
            one = stack.enter_context(opener())
            one.generate(prompt(4), 4)
        except (MissingError, BasculeError, Error, RuntimeError, OSError) as error:
            contest.left_out[name] = str(error).splitlines()[0][:200]
            console.print(f"  {name} is left out: {contest.left_out[name]}")
            continue
        results[name] = one
        contest.grown_nbytes[name] = held_nbytes() - before
        console.print(f"  {name} is ready")
    return results


def compete(contest: Contest, contestants: dict[str, Contestant], rounds: int) -> None:
    for number in range(rounds):
        for name, one in contestants.items():
            run = one.generate(prompt(number), NEW)
            if run.prompt_tokens != PROMPT or run.new_tokens != NEW:
                raise RuntimeError(f"{name}: {run.prompt_tokens} and {run.new_tokens} tokens")
            contest.runs.setdefault(name, []).append(run)
            result = f"{run.prefill_tokens_per_s:.1f} and {run.decode_tokens_per_s:.2f} tokens/s"
            console.print(f"  round {number + 1} of {rounds}: {name}: {result}")
            if (
                isinstance(one, Ours) and name != REFERENCE
            ):  # the same prompt again: only decoding is timed
                again = one.generate(prompt(number), NEW, steps=1)
                if again.text != run.text:
                    raise RuntimeError(f"{name}: another text with one step in flight")
                contest.one_step.setdefault(name, []).append(again)
    for name, one in contestants.items():
        if isinstance(one, Ours):
            contest.facts[name] = one.stats()


def perplexity(contestants: dict[str, Contestant]) -> dict[str, dict[str, float]]:
    """Of the whole text natively, of its first window in pages; `relative` is to float64's."""
    results: dict[str, dict[str, float]] = {}
    for name, one in contestants.items():
        if not isinstance(one, Ours):
            continue
        windows = len(GOLDEN.losses) if isinstance(one, Native) else 1
        starts = [number * GOLDEN.window for number in range(windows)]
        losses = [one.loss(GOLDEN.ids[start : start + GOLDEN.window]) for start in starts]
        ours, known = exp(fmean(losses)), exp(fmean(GOLDEN.losses[:windows]))
        results[name] = {"windows": windows, "perplexity": ours, "float64": known}
        results[name]["relative"] = ours / known - 1
        console.print(
            f"  {name}: {ours:.4f}, float64 {known:.4f}, {ours / known - 1:+.4%} "
            f"({windows} of {len(GOLDEN.losses)} windows)"
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--perplexity", action="store_true", help="also, on every tier: minutes")
    parser.add_argument("--llama-cpp", action="store_true", help="build llama.cpp first: minutes")
    parser.add_argument("--llama-python", type=Path, default=LLAMA_CPP, help="one that has it")
    parser.add_argument("--only", default="", help="contestants whose names hold this")
    options = parser.parse_args()
    if not FILE.is_file():
        raise SystemExit(f"{MODEL} is not there: bascule pull {MODEL}")
    install_npm_peers()
    if options.llama_cpp:
        install_llama_cpp()
    contest = Contest(bandwidth(), FILE.stat().st_size)
    with all_openers(options.llama_python) as openers, ExitStack() as stack:
        wanted = {n: o for n, o in openers.items() if options.only in n or n == REFERENCE}
        contestants = enter(stack, wanted, contest)
        compete(contest, contestants, 1 if options.quick else 3)
        show(contest, REFERENCE)
        losses = perplexity(contestants) if options.perplexity else {}
    OUT.mkdir(exist_ok=True)
    machine = {"cores": os.cpu_count(), "load_average": os.getloadavg()}
    results = {**machine, **as_json(contest), "perplexity": losses}
    (OUT / "bench-generation.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
