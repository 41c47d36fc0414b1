"""T5 in the sizes of T5-small, natively on each tier, beside transformers: tokens a second.

    .venv/bin/python bench/text2text.py [--rounds N] [--tiers wasm,cpu,webgpu]
                                        [--transformers PYTHON]

The weights are random, of a fixed seed: speed does not depend on what they are. PYTHON is an
interpreter that has torch and transformers. All work in float32 and greedily; transformers, numpy
and wasmtime on one thread each. Contestants take turns; the tokens are compared. A rate is what 64
more tokens than one cost, after a source of 190 words. Then each tier answers 4 and 8 texts of 50
to 190 words by 24 tokens each, one after the other and together, in turn; ids are compared. Prints
rates, ratios and what each tier held at the most, by the driver's count, and writes
out/bench-text2text.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule.tasks.text_to_text import TextToTextModel  # noqa: E402
from tests.goldens.t5 import LONG, build  # noqa: E402

OUT = ROOT / "out"
SIZES = {
    **{"vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048, "num_heads": 8},
    **{"num_layers": 6, "num_decoder_layers": 6},
}
N_MORE = 64
N_TOGETHER = 24
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
PEER = """
import json, sys, time
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration
torch.set_num_threads(1)
model = T5ForConditionalGeneration.from_pretrained(sys.argv[1]).eval()
ids = AutoTokenizer.from_pretrained(sys.argv[1])(sys.argv[2], return_tensors="pt").input_ids
for line in sys.stdin:
    n = int(line)
    began = time.perf_counter()
    with torch.no_grad():
        found = model.generate(ids, do_sample=False, max_new_tokens=n, min_new_tokens=n)
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, found[0, 1:].tolist()]), flush=True)
"""
# A number of tokens -> the seconds that they took, and their ids.
Contestant = Callable[[int], Awaitable[tuple[float, list[int]]]]
console = Console(width=110)


def ours(model: TextToTextModel) -> Contestant:
    """A contestant that is a model of ours."""

    async def run(n_tokens: int) -> tuple[float, list[int]]:
        began = perf_counter()
        result = await model.generate(LONG, max_new_tokens=n_tokens)
        return perf_counter() - began, list(result.ids)

    return run


@contextmanager
def transformers(python: str, folder: Path) -> Generator[Contestant]:
    """The peer, in a process of its own."""
    command = [python, "-c", PEER, str(folder), LONG]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, **ONE_THREAD},
    ) as process:  # fmt: skip
        to, out = process.stdin, process.stdout
        assert to is not None
        assert out is not None

        async def run(n_tokens: int) -> tuple[float, list[int]]:
            to.write(f"{n_tokens}\n")
            to.flush()
            seconds, ids = json.loads(await asyncio.to_thread(out.readline))
            return seconds, ids

        yield run
        to.close()


async def compete(contestants: dict[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Rates in tokens a second, a round each; AssertionError where tokens differ."""
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):  # the first warms up
        expected: list[int] = []
        for name, run in contestants.items():
            one, _ = await run(1)
            many, ids = await run(1 + N_MORE)
            expected = expected or ids
            assert ids == expected, f"{name} writes {ids}, not {expected}"
            if number:
                rates[name].append(N_MORE / (many - one))
    return rates


def several(count: int) -> list[str]:
    """Texts of different lengths."""
    words = LONG.split()
    return [" ".join(words[: len(words) - 140 * at // (count - 1)]) for at in range(count)]


async def compete_together(model: TextToTextModel, count: int, rounds: int) -> dict[str, float]:
    """Rates of so many texts one after the other and together, and the median ratio of rounds in
    wall and in CPU time; AssertionError where tokens differ.
    """
    spent: dict[int, list[tuple[float, float]]] = {1: [], count: []}
    n_tokens = 0
    for number in range(rounds + 1):  # the first warms up
        results: list[list[list[int]]] = []
        for size, times in spent.items():
            began = perf_counter(), process_time()
            answers = await model.generate(
                several(count), batch_size=size, max_new_tokens=N_TOGETHER
            )
            if number:
                times.append((perf_counter() - began[0], process_time() - began[1]))
            results.append([answer.ids for answer in answers])
        assert results[0] == results[1], "tokens differ"
        n_tokens = sum(map(len, results[0]))
    alone, together = spent.values()
    return {
        "one_by_one_tokens_per_s": n_tokens / median(wall for wall, _ in alone),
        "together_tokens_per_s": n_tokens / median(wall for wall, _ in together),
        "wall_ratio": median(a[0] / b[0] for a, b in zip(alone, together, strict=True)),
        "cpu_ratio": median(a[1] / b[1] for a, b in zip(alone, together, strict=True)),
    }


async def measure(
    folder: Path, tiers: list[str], rounds: int, peers: dict[str, Contestant]
) -> dict[str, Any]:
    """Load the model on each tier, let all compete, and say what the tiers held."""
    models: dict[str, TextToTextModel] = {}
    async with AsyncExitStack() as stack:
        for tier in tiers:
            model = await stack.enter_async_context(await bascule.load(folder, tier=tier))
            assert isinstance(model, TextToTextModel)
            models[tier] = model
        contestants = {tier: ours(model) for tier, model in models.items()}
        rates = await compete({**contestants, **peers}, rounds)
        together = {
            f"{tier}, {count} texts": await compete_together(model, count, rounds)
            for tier, model in models.items()
            for count in (4, 8)
        }
        held = {
            tier: {
                "weights_nbytes": model.weights.nbytes,
                "peak_nbytes": model.backend.memory.peak_nbytes,
            }
            for tier, model in models.items()
        }
    return {"tokens_per_s": rates, "memory": held, "together": together}


def show(found: dict[str, Any]) -> None:
    """Print medians; a ratio is to transformers, or to the first contestant."""
    rates: dict[str, list[float]] = found["tokens_per_s"]
    reference = rates.get("transformers") or next(iter(rates.values()))
    table = Table("", "tokens a second", "ratio", "weights, MB", "peak, MB")
    for name, each in rates.items():
        ratio = median(a / b for a, b in zip(each, reference, strict=True))
        held = found["memory"].get(name, {}).values()
        sizes = [f"{nbytes / 1e6:,.1f}" for nbytes in held] or ["", ""]
        table.add_row(name, f"{median(each):,.1f}", f"{ratio:.2f}", *sizes)
    console.print(table)
    table = Table("with their sources", "one by one, tokens/s", "together", "wall", "CPU")
    for name, row in found["together"].items():
        one, all_, wall, cpu = row.values()
        table.add_row(name, f"{one:,.1f}", f"{all_:,.1f}", f"{wall:.2f}x", f"{cpu:.2f}x")
    console.print(table)


def main() -> None:
    """Measure, print and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiers", default="wasm,cpu,webgpu")
    parser.add_argument("--transformers", metavar="PYTHON", help="an interpreter that has them")
    options = parser.parse_args()
    if any(os.environ.get(name) != count for name, count in ONE_THREAD.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ONE_THREAD})
    folder = OUT / "bench-text2text"
    if not folder.exists():
        build("t5", folder, **SIZES)
    tiers = options.tiers.split(",")
    with ExitStack() as stack:
        peers: dict[str, Contestant] = {}
        if options.transformers:
            peer = transformers(options.transformers, folder)
            peers["transformers"] = stack.enter_context(peer)
        result = asyncio.run(measure(folder, tiers, options.rounds, peers))
    show(result)
    load = os.getloadavg()[0]
    console.print(f"load average {load:.1f}")
    (OUT / "bench-text2text.json").write_text(json.dumps({**result, "load": load}, indent=1))


if __name__ == "__main__":
    main()
