"""Who takes part in bench/generation.py: this and llama.cpp, natively and in pages."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

import bascule
from bascule.base.folders import models_folder
from bascule.tasks.language import LanguageModel
from bascule.tasks.sampler import GREEDY
from e2e.engines import Engine, Page, wait_for
from e2e.test_language import LOGITS

MODEL = "SmolLM2-135M-Instruct"
FILE = models_folder() / MODEL / "model.gguf"
LIMIT_S = 1200
T = TypeVar("T")


class MissingError(Exception):
    """A contestant that cannot run here, and what it lacks."""


@dataclass(frozen=True)
class Run:
    """One greedy generation. Prefill lasts until the first new token is there."""

    text: str
    prompt_tokens: int
    new_tokens: int
    first_ms: float
    total_ms: float
    stats: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def prefill_tokens_per_s(self) -> float:
        return 1e3 * self.prompt_tokens / self.first_ms

    @property
    def decode_tokens_per_s(self) -> float:
        return 1e3 * (self.new_tokens - 1) / (self.total_ms - self.first_ms)


class Contestant(Protocol):
    """Continues token ids."""

    def generate(self, ids: list[int], maximum: int) -> Run: ...


@runtime_checkable
class Ours(Protocol):
    """What more Bascule can be asked."""

    def generate(self, ids: list[int], maximum: int, steps: int = 8) -> Run: ...

    def loss(self, ids: list[int]) -> float:
        """Mean negative log-likelihood in nats of all tokens but the first."""
        ...

    def stats(self) -> dict[str, float]: ...


def run_of(text: str, stats: dict[str, float]) -> Run:
    """What our own statistics tell; tokens that were known before are no prompt."""
    prompt = int(stats["prompt_tokens"] - stats["reused_tokens"])
    first = stats["first_token_ms"]
    after = 1e3 * (stats["new_tokens"] - 1) / stats["decode_tokens_per_s"]
    return Run(text, prompt, int(stats["new_tokens"]), first, first + after, stats)


class Loop:
    """An event loop in a thread of its own: Playwright's has the main one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


@dataclass(frozen=True)
class Native:
    """A tier in this process."""

    model: LanguageModel
    loop: Loop

    def generate(self, ids: list[int], maximum: int, steps: int = 8) -> Run:
        options = {"sampling": GREEDY, "max_new_tokens": maximum, "steps_in_flight": steps}
        made = self.loop.wait(self.model.generate(ids, **options))
        return run_of(made.text, made.stats)

    def loss(self, ids: list[int]) -> float:
        rows = self.loop.wait(self.model.logits(ids))[:-1].astype(np.float64)
        maximum = rows.max(axis=1)
        totals = np.log(np.exp(rows - maximum[:, None]).sum(axis=1)) + maximum
        return float((totals - rows[np.arange(len(rows)), ids[1:]]).mean())

    def stats(self) -> dict[str, float]:
        return self.model.stats


@contextmanager
def native(tier: Literal["webgpu", "cpu"], loop: Loop) -> Iterator[Native]:
    model = loop.wait(bascule.load(MODEL, tier=tier))
    assert isinstance(model, LanguageModel)
    try:
        yield Native(model, loop)
    finally:
        model.close()


# Mean negative log-likelihood in nats of each token but the first, by the logits that LOGITS left.
LOSS = """(ids) => {
  const { data, columns } = globalThis.found;
  let sum = 0;
  for (let t = 0; t + 1 < ids.length; t++) {
    const row = data.subarray(t * columns, (t + 1) * columns);
    const top = row.reduce((most, value) => Math.max(most, value), -Infinity);
    const total = row.reduce((all, value) => all + Math.exp(value - top), 0);
    sum += Math.log(total) + top - row[ids[t + 1]];
  }
  return sum / (ids.length - 1);
}"""


@dataclass(frozen=True)
class InPage:
    """The chat page."""

    page: Page

    def generate(self, ids: list[int], maximum: int, steps: int = 8) -> Run:
        options = {"greedy": True, "max_new_tokens": maximum, "steps_in_flight": steps}
        made = self.page.run(
            "([ids, options]) => bascule.generate(ids, options)", [list(ids), options]
        )
        return run_of(made["text"], made["stats"])

    def loss(self, ids: list[int]) -> float:
        self.page.run(LOGITS, list(ids))
        result: float = self.page.run(LOSS, list(ids))
        return result

    def stats(self) -> dict[str, float]:
        result: dict[str, float] = self.page.run("() => bascule.stats()")
        return result


@contextmanager
def in_page(engine: Engine, url: str, tier: str) -> Iterator[InPage]:
    page: Any = engine.new_page()
    page.page.set_default_timeout(1e3 * LIMIT_S)
    page.open(f"{url}/chat.html?model={MODEL}&tier={tier}")
    state = "document.querySelector('#status')?.dataset.state"
    wait_for(page, f"['ready', 'error'].includes({state})")
    if page.run(f"() => {state}") != "ready":
        raise MissingError(page.run("() => document.body.innerText")[:200])
    yield InPage(page)


@dataclass(frozen=True)
class Wllama:
    """The peer in the page; it takes a prompt as text."""

    page: Page
    texts: Any  # decode_bytes of our tokenizer

    def generate(self, ids: list[int], maximum: int) -> Run:
        prompt = self.texts(ids).decode()
        script = "([prompt, most]) => wllama.generate(peer.runtime, prompt, most)"
        made = self.page.run(script, [prompt, maximum])
        if made["promptTokens"] != len(ids):
            raise RuntimeError(f"wllama saw {made['promptTokens']} tokens, not {len(ids)}")
        return Run(made["text"], len(ids), made["tokens"], made["first"], made["total"])


@contextmanager
def wllama(engine: Engine, url: str, threads: int, texts: Any) -> Iterator[Wllama]:
    page: Any = engine.new_page()
    page.page.set_default_timeout(1e3 * LIMIT_S)
    page.open(f"{url}/bench/")
    result = page.run(
        """async ([model, threads]) => {
          globalThis.wllama = await import("/bench/wllama.js");
          globalThis.peer = await wllama.open(model, threads);
          return peer.threads;
        }""",
        [f"/models/{MODEL}/{FILE.name}", threads],
    )
    if result != threads:
        raise MissingError(f"it runs {result} threads here")
    yield Wllama(page, texts)
    page.close()


@dataclass(frozen=True)
class LlamaCpp:
    """The peer in a process of its own."""

    process: subprocess.Popen[str]
    texts: Any

    def generate(self, ids: list[int], maximum: int) -> Run:
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"ids": list(ids), "most": maximum}) + "\n")
        self.process.stdin.flush()
        made = answer(self.process)
        text = self.texts(made["ids"]).decode(errors="replace")
        return Run(text, len(ids), len(made["ids"]), made["first_ms"], made["total_ms"])


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        raise MissingError(f"its process ended with {process.wait()}")
    result: dict[str, Any] = json.loads(line)
    return result


@contextmanager
def llama_cpp(python: Path, texts: Any) -> Iterator[LlamaCpp]:
    if not python.is_file():
        raise MissingError("no llama-cpp-python (--llama-cpp builds it: ten minutes)")
    script = Path(__file__).with_name("llama_cpp_peer.py")
    command = [str(python), str(script), str(FILE), str(os.cpu_count())]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        answer(process)
        yield LlamaCpp(process, texts)
    finally:
        process.kill()
        process.wait()
