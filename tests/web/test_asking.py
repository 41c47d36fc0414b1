"""A device whose work is only looked at with submissions answers soon: web/bridge/ run by node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# As Firefox: work is found to be done with the first submission after it, and every 1,000 s.
DEVICE = """
import { Submission } from "./web/bridge/submission.js";
const sleep = (ms) => new Promise((wake) => setTimeout(wake, ms));
let asked = 0;
let lost = false;
const running = new Set();
const submit = () => {
  if (lost) throw new Error("the device was lost");
  asked += 1;
  for (const each of running) {
    if (performance.now() < each.end) continue;
    running.delete(each);
    each.done();
  }
};
const work = (ms) =>
  new Promise((done, fail) => running.add({ end: performance.now() + ms, done, fail }));
const submission = new Submission({ queue: { submit } }, {});
const finish = (found) => { console.log(JSON.stringify(found)); process.exit(); };
setTimeout(() => finish("nobody asked"), 20_000);
"""


def node(script: str) -> Any:
    command = ["node", "--input-type=module", "-e", DEVICE + script]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_work_is_asked_after_until_it_is_done_and_no_longer() -> None:
    asked, later = node("""
    for (let i = 0; i < 5; i += 1) await submission.finished(work(0));
    const before = asked;
    await sleep(100);
    finish([before, asked]);
    """)
    assert 5 <= asked <= 10  # a slow machine may ask once more before it sees the answer
    assert later == asked


def test_long_work_is_asked_after_less_and_less_often() -> None:
    asked = node("await submission.finished(work(400)); finish(asked);")
    # For 128 ms an eighth of the time later each, in whole ms: 8 * (1 + 1/1 + 1/2 + ... + 1/15).
    assert 5 < asked <= 36 + 272 / 16 + 2


def test_two_that_wait_share_the_asking() -> None:
    asked = node("""
    const both = [submission.finished(work(200)), submission.finished(work(200))];
    await Promise.all(both);
    const during = asked;
    await sleep(100);
    finish([during, asked - during]);
    """)
    assert asked[0] <= 36 + 72 / 16 + 2
    assert asked[1] == 0


def test_a_lost_device_is_not_asked() -> None:
    message, unhandled = node("""
    let unhandled = 0;
    process.on("uncaughtException", () => { unhandled += 1; });
    const failing = submission.finished(work(1e6));
    lost = true;
    await sleep(50);
    for (const { fail } of running) fail(new Error("lost"));
    const message = await failing.catch((error) => error.message);
    await sleep(50);
    finish([message, unhandled]);
    """)
    assert (message, unhandled) == ("lost", 0)
