"""Two workers that want one file, on one store: what one fetches the other takes, and nothing comes
twice. web/bridge/ run by node, whose requests go over real sockets."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weights.faulty import Fault, FaultyServer

ROOT = Path(__file__).resolve().parents[2]
CHUNK = 4096
SIZE = 16 * CHUNK + 77
SETUP = """
import { MemoryStore } from "./tests/web/store.mjs";
import { Locks } from "./tests/web/locks.mjs";
const value = { locks: new Locks() };
Object.defineProperty(globalThis, "navigator", { value, configurable: true });
import * as download from "./web/bridge/download.js";
import { Fetcher } from "./web/bridge/fetcher.js";
import * as http from "./web/bridge/http.js";
import * as journal from "./web/bridge/journal.js";
import * as manifest from "./web/bridge/manifest.js";
import * as pieces from "./web/bridge/pieces.js";
import * as shelf from "./web/bridge/shelf.js";

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const files = new Map();

/** A worker's own view of the store that both share. It may hear late of what is in the journal. */
class OwnStore extends MemoryStore {
  files = files;
  /** @param {(entry: { hashes: string[] }) => unknown} late */
  constructor(late) {
    super();
    this.late = late;
  }
  async get(name, into) {
    const found = await super.get(name, into);
    if (!found || !name.startsWith("f-")) return found;
    await this.late(JSON.parse(new TextDecoder().decode(found)));
    return found;
  }
}

const delays = { firstDelayMs: 10, maxDelayMs: 20, stallMs: 5000, maxWaitMs: 100 };
const retry = { attempts: 3, ...delays, silenceMs: 10_000 };
const options = { store: "auto", chunkNbytes: CHUNK, maxNbytes: 2 ** 30, retry };
const parts = { store: {}, http, journal, manifest, download, shelf, pieces };
const reader = (late = () => {}) => new Fetcher(parts, options, new OwnStore(late));
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_bytes(bytes(i * i // 7 % 256 for i in range(SIZE)))
    with FaultyServer(tmp_path) as server:
        yield server


def node(server: FaultyServer, script: str) -> Any:
    """What a script, after SETUP, gives to `done`."""
    known = f'const CHUNK = {CHUNK}, SIZE = {SIZE}, folder = "{server.url}/m";'
    end = "const done = (value) => { console.log(JSON.stringify(value)); process.exit(); };"
    code = f"{known}\n{SETUP}\n{end}\n{script}"
    command = ["node", "--input-type=module", "-e", code]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_nothing_is_fetched_twice(server: FaultyServer) -> None:
    """The one that fetches ends, and its lock goes to the other, while that one still reads a
    journal without the last chunk."""
    server.plan("weights", Fault("slow", bytes_per_second=20 * CHUNK))
    same = node(
        server,
        """
        const ahead = reader().prefetch(folder, { small: [], large: ["weights"] }, 1024, () => {});
        await sleep(100);
        const lastIsMissing = ({ hashes }) => hashes.filter((hash) => !hash).length === 1;
        const other = reader((entry) => lastIsMissing(entry) && ahead.then(() => sleep(50)));
        const bytes = await other.read(folder, "weights", 0, SIZE);
        done(bytes.every((byte, i) => byte === Math.floor((i * i) / 7) % 256));
        """,
    )
    assert same
    assert server.sent["/m/weights"] == SIZE


def test_one_takes_over_where_the_other_stops(server: FaultyServer) -> None:
    server.plan("weights", Fault("slow", bytes_per_second=20 * CHUNK))
    same, kept = node(
        server,
        """
        const first = reader();
        const ahead = first.prefetch(folder, { small: [], large: ["weights"] }, 1024, () => {});
        await sleep(300);
        const other = reader(() => sleep(40));
        const reading = other.read(folder, "weights", 0, SIZE);
        await sleep(100);
        const kept = first.progress(folder, "weights")[0];
        first.close(folder);
        await ahead;
        const bytes = await reading;
        done([bytes.every((byte, i) => byte === Math.floor((i * i) / 7) % 256), kept]);
        """,
    )
    assert same
    assert kept >= CHUNK
    # Of what was kept nothing comes again; the chunk that was on its way may.
    assert server.sent["/m/weights"] <= SIZE + 2 * CHUNK


def test_a_lock_that_nobody_waits_for_any_more_is_let_go(server: FaultyServer) -> None:
    """The second has what it wants, the fifth chunk, before its turn to fetch comes."""
    server.plan("weights", Fault("slow", bytes_per_second=20 * CHUNK))
    held = node(
        server,
        """
        const ahead = reader().prefetch(folder, { small: [], large: ["weights"] }, 1024, () => {});
        await sleep(100);
        const data = new Uint8Array(new Float64Array([4 * CHUNK, CHUNK, 0, 0, 3]).buffer);
        const table = { getBuffer: () => ({ data, release() {} }) };
        await reader().stream(folder, "weights", table, null, () => {}, "", () => {});
        await ahead;
        await sleep(50);
        done((await navigator.locks.query()).held.map(({ name }) => name.split(":")[1]));
        """.replace("", ""),
    )
    assert "use" in held
    assert "load" not in held
