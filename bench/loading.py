"""Time to the first embedding: a page's first visit and its second, beside transformers.js; and of
the chat page to its first token.

    .venv/bin/python bench/loading.py [--quick] [--mbit 100] [--browser chromium] [--tier webgpu]

Each contestant in turn gets a browser with a fresh profile, already started, which no test driver
watches (bench/undriven.py): its page is opened, closed and opened again in a new tab. Round 0 warms
the machine's own caches and samples the browsers' memory, which costs time, so its times do not
count. Prints medians, ratios and their bars, and writes out/bench-loading.json (with a link's speed
in the name). bench/README.md says how to read it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import bascule  # noqa: E402
from bascule.base.folders import models_folder  # noqa: E402
from bascule.server.app import create_app  # noqa: E402
from bascule.server.run import pyodide_folder, running  # noqa: E402
from bascule.server.snapshot import make_snapshot  # noqa: E402
from bascule.server.wheel import WheelHouse  # noqa: E402
from bench.embeddings import BENCH, MODEL, OUT, install_peers, text_of  # noqa: E402
from bench.traffic import Traffic  # noqa: E402
from bench.undriven import Measured, Undriven, undriven  # noqa: E402
from bench.visits import (  # noqa: E402
    CHAT_PAGE,
    MAIN,
    PEER,
    VISITS,
    Contest,
    Reference,
    Visit,
    console,
    held,
    markdown,
    ratios,
    show,
    stages,
    stages_of,
)
from e2e.test_memory import browser_nbytes, sampled  # noqa: E402
from tests.goldens import cosines  # noqa: E402

BROWSERS = ("chromium", "firefox")
TEXT = text_of(16)
LIMIT_S = 180
PEER_PAGE = "/bench/transformers.html"
SETTLE_S = 2.0  # between visits: a cache may still be writing when the first result is there
QUESTION = "What is a bascule bridge?"
N_TOKENS = 4  # of the answer; the first is waited for, the others tell that it is the right one
CHAT_MODEL = "SmolLM2-135M-Instruct"

# All give {ready, first, result, stats}; performance.now() counts from the start of the navigation.
OURS = """async (text) => {
  await bascule.ready;
  const ready = performance.now();
  const { data } = await bascule.embed([text]);
  const first = performance.now();
  return { ready, first, result: Array.from(data), stats: await bascule.stats() };
}"""
THEIRS = """async (text) => {
  await transformers.ready;
  const ready = performance.now();
  const result = await transformers.embed(text);
  return { ready, first: performance.now(), result, stats: {} };
}"""
CHAT = """async ({ text, tokens }) => {
  await bascule.ready;
  const ready = performance.now();
  let first = 0;
  const onPiece = () => { first ||= performance.now(); };
  const options = { temperature: 0, max_new_tokens: tokens };
  const answer = await bascule.chat([{ role: "user", content: text }], options, { onPiece });
  return { ready, first, result: answer.text, stats: await bascule.stats() };
}"""


@dataclass(frozen=True)
class Contestant:
    """A page, and the JavaScript that waits for its first embedding."""

    name: str
    url: str
    site: Measured
    traffic: Traffic

    @property
    def ours(self) -> bool:
        return self.name.startswith("bascule")


@contextmanager
def contestants(mbit: float, tiers: list[str]) -> Iterator[list[Contestant]]:
    """A server on a port of its own for each, so that the origins share no storage."""
    folders = {
        "peers": BENCH / "node_modules",
        "bench": BENCH,
        "transformers": OUT / "transformers",
    }
    common = {"models": models_folder(), "pyodide": pyodide_folder()}
    house = WheelHouse()
    make_snapshot(pyodide_folder(), house.current())  # the site ships it, from the first visit on
    house.close()
    sentences = Traffic(create_app(**common, snapshots=True), mbit)
    chat = Traffic(create_app(**common, snapshots=True), mbit)
    theirs = Traffic(create_app(**common, isolated=False, extra=folders), mbit)
    question = {"text": QUESTION, "tokens": N_TOKENS}
    sites = (
        (sentences, Measured(sentences, "/", OURS, TEXT, SETTLE_S)),
        (theirs, Measured(theirs, PEER_PAGE, THEIRS, TEXT, SETTLE_S)),
        (chat, Measured(chat, "/chat.html", CHAT, question, SETTLE_S)),
    )
    with ExitStack() as stack:
        (ours, our_url), (peer, peer_url), (talk, talk_url) = (
            ((site, traffic), stack.enter_context(running(site))) for traffic, site in sites
        )
        results = [
            Contestant(MAIN, f"{our_url}/?tier=auto", *ours),
            Contestant(PEER, f"{peer_url}{PEER_PAGE}?device=wasm", *peer),
            Contestant(CHAT_PAGE, f"{talk_url}/chat.html?tier=auto", *talk),
        ]
        results += [Contestant(f"bascule {t}", f"{our_url}/?tier={t}", *ours) for t in tiers]
        if "webgpu" in tiers:
            url = f"{peer_url}{PEER_PAGE}?device=webgpu"
            results.append(Contestant("transformers.js webgpu", url, *peer))
        yield results


def opened(browser: Undriven, who: Contestant) -> dict[str, Any]:
    """Open the page in a new tab and wait for its first embedding; the tab is closed then."""
    browser.open(who.url)
    result = who.site.take(LIMIT_S)
    time.sleep(2 * SETTLE_S)
    return result


def two_visits(
    contest: Contest, tabs: Undriven, browser: str, who: Contestant, number: int
) -> None:
    time.sleep(SETTLE_S)
    empty = browser_nbytes()
    for visit in VISITS:
        who.traffic.take()
        peaks: list[int] = []
        if number == 0:
            with sampled(peaks):
                result = opened(tabs, who)
        else:
            result = opened(tabs, who)
        check(contest.reference, who, result["result"])
        contest.visits.append(
            Visit(
                browser,
                who.name,
                visit,
                number,
                result["first"],
                stages_of(result) if who.ours else {},
                who.traffic.take(),
                max(peaks) - empty if peaks else None,
            )
        )


def check(reference: Reference, who: Contestant, result: Any) -> None:
    """RuntimeError where a contestant computes something else."""
    if who.name == CHAT_PAGE:
        if result != reference.answer:
            raise RuntimeError(f"it answers {result!r} instead of {reference.answer!r}")
        return
    likeness = cosines([result], [reference.embedding])[0]
    if not likeness > 0.9999:
        raise RuntimeError(f"it computes something else (cosine {likeness:.6f})")


def compete(
    contest: Contest, browsers: list[str], rounds: int, mbit: float, tiers: list[str]
) -> None:
    with contestants(mbit, tiers) as all_of_them:
        for browser in browsers:
            for number in range(rounds + 1):
                for who in all_of_them:
                    if f"{browser} {who.name}" in contest.failed:
                        continue
                    try:
                        with undriven(browser) as tabs:
                            two_visits(contest, tabs, browser, who, number)
                    except RuntimeError as error:
                        if who.ours or number:
                            raise
                        reason = str(error).splitlines()[0][:200]
                        contest.failed[f"{browser} {who.name}"] = reason
                        console.print(f"  {who.name} does not run in {browser}: {reason}")
                result = "warm-up, memory" if number == 0 else "timed"
                console.print(f"  {browser}: round {number} ({result}) done")


async def reference() -> Reference:
    """The results by the native CPU tier, which the tests hold against goldens."""
    async with await bascule.load(MODEL, tier="cpu") as model:
        embedding = (await model.embed([TEXT]))[0]
    async with await bascule.load(CHAT_MODEL, tier="cpu") as model:
        message = {"role": "user", "content": QUESTION}
        answer = await model.chat([message], temperature=0, max_new_tokens=N_TOKENS)
    return Reference(embedding, answer.text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one timed round instead of three")
    parser.add_argument("--browser", choices=BROWSERS, help="only this one")
    parser.add_argument("--mbit", type=float, default=0, help="speed of the link (loopback: none)")
    parser.add_argument(
        "--tier", action="append", default=[], help="another tier of ours, beside auto (repeatable)"
    )
    options = parser.parse_args()
    browsers = [options.browser] if options.browser else list(BROWSERS)
    install_peers()
    from bench.make_onnx import build_for_transformers

    console.print("Building transformers.js' model folder ...")
    build_for_transformers(MODEL, OUT / "transformers" / MODEL.name)
    contest = Contest(bascule.sync(reference()))
    load_before = os.getloadavg()
    compete(contest, browsers, 1 if options.quick else 3, options.mbit, options.tier)
    show(contest, browsers)
    lines = markdown(contest, browsers)
    print(*lines, sep="\n")
    results = {
        "cores": os.cpu_count(),
        "mbit": options.mbit,
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "bars": [asdict(row) for browser in browsers for row in held(contest, browser)],
        "markdown": lines,
        "stages": {browser: stages(contest, browser) for browser in browsers},
        "ratios": {browser: ratios(contest, browser) for browser in browsers},
        "failed": contest.failed,
        "visits": [asdict(v) for v in contest.visits],
    }
    name = f"bench-loading-{options.mbit:g}-mbit.json" if options.mbit else "bench-loading.json"
    (OUT / name).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
