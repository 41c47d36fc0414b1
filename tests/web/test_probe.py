"""What a page can do is found out although its thread is held up: web/bridge/ run by node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# An adapter that has answered, and another that never does, on a thread that is held up for longer
# than the limit.
SCRIPT = """
import { probe } from "./web/bridge/probe.js";
const held = (ms) => { for (const end = performance.now() + ms; performance.now() < end; ); };
const adapter = { info: {}, limits: {}, features: [] };
// It is heard after the timers that are due once the thread is free.
const soon = new Promise((resolve) => setImmediate(() => setImmediate(() => resolve(adapter))));
const device = (findAdapter) => ({ findAdapter, describe: () => ({ adapter: "there" }) });
globalThis.navigator ??= {};
navigator.gpu ??= {};
const answers = [probe(device(() => soon), 500), probe(device(() => new Promise(() => {})), 500)];
await null;
held(1500);
const [found, silent] = (await Promise.all(answers)).map((each) => JSON.parse(each));
console.log(JSON.stringify([found.problems.webgpu ?? found.adapter, silent.problems.webgpu]));
process.exit();
"""


def test_a_thread_that_is_held_up_costs_no_answer() -> None:
    command = ["node", "--input-type=module", "-e", SCRIPT]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    result, silent = json.loads(run.stdout)
    assert result == "there"
    assert silent == "no answer within 500 ms"
