"""Whisper tiny.en on 30 s of speech beside its peers: one run, contestants in turn.

    .venv/bin/python bench/speech.py [--rounds N] [--only NAME] [--temperature T]
                        [--faster-whisper PYTHON] [--transformers-js ONNX_FOLDER]

The model must be there (bascule pull whisper-tiny.en). PYTHON is an interpreter that has
faster-whisper 1.2; it reads the same files. ONNX_FOLDER has the same weights as optimum exports
them; bench/README.md says how. All work in float32, greedily, without timestamps (so the 30 s are
one window for everyone), the peers on one thread. With a temperature of 1e-9 the text is the same,
but the host reads and weighs all logits of each step, as it does for every draw. Prints real-time
factors (seconds of work a second of sound), ratios, our stages and the texts that differ, and
writes out/bench-speech.json.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import IO, Any

import numpy as np
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule.audio.recordings import read_recording  # noqa: E402
from bascule.audio.samples import checked_samples, resample  # noqa: E402
from bascule.base.folders import models_folder  # noqa: E402
from bascule.server.app import create_app  # noqa: E402
from bascule.server.run import pyodide_folder, running  # noqa: E402
from bascule.tasks.speech import SpeechModel  # noqa: E402
from bascule.tasks.speech_steps import COUNTERS, STAGES  # noqa: E402
from bench.embeddings import BENCH, install_npm_peers, served  # noqa: E402
from e2e.conftest import settled  # noqa: E402
from e2e.engines import Page, chromium, wait_for  # noqa: E402

OUT, MODEL, RATE, SECONDS = ROOT / "out", "whisper-tiny.en", 16_000, 30
RECORDINGS = ROOT / "tests" / "recordings"
REFERENCE = "native: Bascule, WASM"
JS = "Chromium: transformers.js, WASM"
console = Console(width=120)
SAMPLES = """(samples) => {
  globalThis.samples = Float32Array.from(samples, (each) => each / 32768);
}"""
TRANSCRIBE = """async (options) => {
  const before = await bascule.stats();
  const began = performance.now();
  const { text } = await bascule.transcribe(globalThis.samples, 16000, options);
  const ms = performance.now() - began;
  const after = await bascule.stats();
  const stats = Object.entries(after).map(([name, value]) => [name, value - (before[name] ?? 0)]);
  return { text, ms, stats: Object.fromEntries(stats) };
}"""
JS_TRANSCRIBE = """async () => {
  const began = performance.now();
  const text = await transformers.transcribe(globalThis.samples);
  return { text, ms: performance.now() - began };
}"""
# Reads samples from a file, then transcribes once for each line.
PEER = """
import sys, time, json, numpy as np
from faster_whisper import WhisperModel
model = WhisperModel(sys.argv[1], device="cpu", compute_type="float32", cpu_threads=1)
samples = np.fromfile(sys.argv[2], np.int16).astype(np.float32) / 32768
for line in sys.stdin:
    began = time.perf_counter()
    found, _ = model.transcribe(samples, beam_size=1, temperature=0, language="en",
                                condition_on_previous_text=False, without_timestamps=True)
    text = "".join(each.text for each in found).strip()
    print(json.dumps({"text": text, "ms": 1e3 * (time.perf_counter() - began)}), flush=True)
"""


@dataclass
class Run:
    """One transcription, and by how much our counters grew."""

    text: str
    ms: float
    stats: dict[str, float] = field(default_factory=dict[str, float])


Transcribe = Callable[[], Run]


def speech() -> np.ndarray[Any, Any]:
    """The recordings of the tests one after the other, again and again: (N) int16."""

    async def read(name: str) -> np.ndarray[Any, Any]:
        result = await read_recording(str(RECORDINGS / name), RATE)
        return resample(checked_samples(result.samples, "audio"), result.rate, RATE)

    both = np.concatenate([asyncio.run(read(name)) for name in ("bridge.wav", "measure.wav")])
    whole = np.resize(both, RATE * SECONDS)
    return np.clip(np.round(whole * 32768), -32768, 32767).astype(np.int16)


@contextmanager
def native(samples: np.ndarray[Any, Any], tier: str, temperature: float) -> Iterator[Transcribe]:
    """A tier in this process."""
    loop, sound = asyncio.new_event_loop(), samples.astype(np.float32) / 32768
    threading.Thread(target=loop.run_forever, daemon=True).start()  # Playwright's has the main one

    def wait(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    model = wait(bascule.load(MODEL, tier=tier))
    assert isinstance(model, SpeechModel)

    def once() -> Run:
        before, began = model.stats, perf_counter()
        options = {"temperatures": temperature, "language": "en", "timestamps": False}
        said = wait(model.transcribe(sound, **options))
        ms = 1e3 * (perf_counter() - began)
        return Run(said.text, ms, {n: v - before.get(n, 0) for n, v in model.stats.items()})

    try:
        yield once
    finally:
        model.close()


@contextmanager
def in_page(page: Page, samples: np.ndarray[Any, Any], temperature: float) -> Iterator[Transcribe]:
    """The page of speech."""
    options = {"temperatures": temperature, "language": "en", "timestamps": False}
    if settled(page) != "ready":
        raise RuntimeError(page.run("() => document.querySelector('#error-what').textContent"))
    page.run(SAMPLES, samples.tolist())
    try:
        yield lambda: Run(**page.run(TRANSCRIBE, options))
    finally:
        page.close()


@contextmanager
def transformers_js(page: Page, url: str, samples: np.ndarray[Any, Any]) -> Iterator[Transcribe]:
    """transformers.js on WASM, on a page of its own."""
    query = "task=automatic-speech-recognition&model=whisper-tiny.en"
    page.open(f"{url}/bench/transformers.html?{query}")
    wait_for(page, "globalThis.transformers")
    page.run(SAMPLES, samples.tolist())

    def once() -> Run:
        result = page.run(JS_TRANSCRIBE)
        return Run(result["text"].strip(), result["ms"])

    try:
        yield once
    finally:
        page.close()


def onnx_site(exported: Path) -> AbstractContextManager[str]:
    """Serves an export as transformers.js looks for one: its graphs in a folder named onnx."""
    install_npm_peers()
    folder = OUT / "bench-speech-onnx" / MODEL
    (folder / "onnx").mkdir(parents=True, exist_ok=True)
    for file in exported.glob("*.json"):
        shutil.copy(file, folder)
    for name in ("encoder_model.onnx", "decoder_model_merged.onnx"):
        shutil.copy(exported / name, folder / "onnx")
    folders = {"peers": BENCH / "node_modules", "bench": BENCH, "transformers": folder.parent}
    return served(folders)


def peer_folder() -> Path:
    """The model's folder with a vocabulary.json, without which CTranslate2 loads none."""
    folder = OUT / "bench-speech-model"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (models_folder() / MODEL).iterdir():
        copy = folder / file.name
        if not copy.exists():
            copy.symlink_to(file)
    read = json.loads((folder / "tokenizer.json").read_text())
    ids: dict[str, int] = {**read["model"]["vocab"]}
    ids |= {each["content"]: each["id"] for each in read["added_tokens"]}
    by_id = {at: text for text, at in ids.items()}
    first = ids["<|notimestamps|>"] + 1
    times = {first + at: f"<|{0.02 * at:.2f}|>" for at in range(1501)}
    results = {**by_id, **times}
    words = [results.get(at, f"<|unused{at}|>") for at in range(first + 1501)]
    (folder / "vocabulary.json").write_text(json.dumps(words))
    return folder


@contextmanager
def faster_whisper(python: str, samples: np.ndarray[Any, Any]) -> Iterator[Transcribe]:
    """The peer, in a process of its own."""
    OUT.mkdir(exist_ok=True)
    file = OUT / "bench-speech.raw"
    samples.tofile(file)
    command = [python, "-c", PEER, str(peer_folder()), str(file)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=one_thread
    ) as process:

        def once() -> Run:
            return Run(**_asked(process.stdin, process.stdout))

        yield once
        assert process.stdin is not None
        process.stdin.close()


def _asked(to: IO[str] | None, out: IO[str] | None) -> dict[str, Any]:
    assert to is not None
    assert out is not None
    to.write("\n")
    to.flush()
    answer = out.readline()
    if not answer:
        raise RuntimeError("faster-whisper ended without an answer")
    return json.loads(answer)


def show(found: dict[str, list[Run]]) -> None:
    table = Table("", "ms", "real-time factor", "ratio", "text")
    reference = found.get(REFERENCE) or next(iter(found.values()))
    for name, runs in found.items():
        ms = median(run.ms for run in runs)
        ratios = [a.ms / b.ms for a, b in zip(runs, reference, strict=True)]
        same = "equal" if all(run.text == reference[0].text for run in runs) else "differs"
        factor = f"{ms / 1e3 / SECONDS:.3f}"
        table.add_row(name, f"{ms:,.0f}", factor, f"{median(ratios):.2f}", same)
    console.print(table)
    for name, runs in found.items():
        if runs[0].text != reference[0].text:
            console.print(f"{name}: {runs[0].text}")
    console.print(f"the reference: {reference[0].text}")
    table = Table("medians", *COUNTERS, *STAGES, "ms a step")
    for name, runs in found.items():
        if not runs[0].stats:
            continue
        middle = {key: median(run.stats[key] for run in runs) for key in (*COUNTERS, *STAGES)}
        step = (middle["decode_ms"] + middle["rules_ms"]) / middle["decoder_steps"]
        table.add_row(name, *(f"{value:,.0f}" for value in middle.values()), f"{step:.1f}")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", help="a part of a contestant's name")
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--faster-whisper", metavar="PYTHON")
    parser.add_argument("--transformers-js", metavar="ONNX_FOLDER", type=Path)
    asked = parser.parse_args()
    samples, load, heat = speech(), os.getloadavg()[0], asked.temperature
    app = create_app(models=models_folder(), pyodide=pyodide_folder())
    with (
        sync_playwright() as playwright,
        running(app) as url,
        chromium(playwright, "chromium", webgpu=True) as engine,
        ExitStack() as stack,
    ):

        def opened(tier: str) -> Page:
            page = engine.new_page()
            page.open(f"{url}/transcribe.html?tier={tier}")
            return page

        openers = {
            REFERENCE: lambda: native(samples, "wasm", heat),
            "native: Bascule, CPU tier": lambda: native(samples, "cpu", heat),
            "native: Bascule, WebGPU": lambda: native(samples, "webgpu", heat),
            "Chromium: Bascule, WASM": lambda: in_page(opened("wasm"), samples, heat),
            "Chromium: Bascule, WebGPU": lambda: in_page(opened("webgpu"), samples, heat),
        }
        if asked.faster_whisper:
            peer = "native: faster-whisper, 1 thread"
            openers[peer] = lambda: faster_whisper(asked.faster_whisper, samples)
        if asked.transformers_js:
            site = stack.enter_context(onnx_site(asked.transformers_js))
            openers[JS] = lambda: transformers_js(engine.new_page(), site, samples)
        contestants: dict[str, Transcribe] = {}
        for name, opener in openers.items():
            if not asked.only or any(part in name for part in asked.only):
                contestants[name] = stack.enter_context(opener())
                contestants[name]()  # compiles, and takes memory
        results: dict[str, list[Run]] = {name: [] for name in contestants}
        for _ in range(asked.rounds):
            for name, once in contestants.items():
                results[name].append(once())
                console.print(f"  {name}: {results[name][-1].ms:,.0f} ms")
    show(results)
    console.print(f"load average {load:.1f} before, {os.getloadavg()[0]:.1f} after")
    OUT.mkdir(exist_ok=True)
    rows = {name: [asdict(run) for run in runs] for name, runs in results.items()}
    result = {"seconds": SECONDS, "load_average": [load, os.getloadavg()[0]], "runs": rows}
    (OUT / "bench-speech.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
