"""What a page fetches for its worker: the index of what a site ships, and a snapshot's bytes.
web/shipped.js run by node, whose requests go over real sockets."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weights.faulty import FaultyServer

ROOT = Path(__file__).resolve().parents[2]
BYTES = b"\x00snp" + bytes(range(256)) * 40
SNAPSHOT = {
    "file": "a.snapshot",
    "key": "k",
    "sha256": hashlib.sha256(BYTES).hexdigest(),
    "nbytes": len(BYTES),
    "pyodide": "1.2.3",
}
# What the worker gets: null without an index, else the snapshot's key and its length, or a fault.
RECEIVE = """
import { receiveShipped, sendShipped } from "./web/shipped.js";
const { port1, port2 } = new MessageChannel();
const control = new AbortController();
sendShipped({ pyodide: PYODIDE, wheel: WHEEL }, port1, control.signal);
const received = receiveShipped(port2);
const shipped = await received.shipped;
const bytes = await shipped?.bytes?.then((all) => all.length, (error) => error.message);
console.log(JSON.stringify(shipped && [shipped.index.snapshot?.key ?? null, bytes ?? null]));
process.exit();
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "pyodide.mjs").write_text('export const version = "1.2.3";')
    (tmp_path / "wheel").mkdir()
    with FaultyServer(tmp_path) as server:
        yield server


def received(
    server: FaultyServer, site: Path, index: dict[str, Any] | None, data: bytes | None
) -> Any:
    """What a worker gets of a site with that index and that snapshot."""
    folder = site / "wheel"
    if index is not None:
        (folder / "index.json").write_text(json.dumps(index))
    if data is not None:
        (folder / "a.snapshot").write_bytes(data)
    known = f'const PYODIDE = "file://{site}/", WHEEL = "{server.url}/wheel/index.json";\n'
    command = ["node", "--input-type=module", "-e", known + RECEIVE]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_bytes_come_from_the_page(server: FaultyServer, tmp_path: Path) -> None:
    assert received(server, tmp_path, {"wheel": "w", "snapshot": SNAPSHOT}, BYTES) == [
        "k",
        len(BYTES),
    ]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "404"),
        (BYTES[:-1], "bytes instead of"),
        (BYTES[:-1] + b"?", "its hash is wrong"),
        (b"?" + BYTES[1:], "it is no snapshot"),
    ],
    ids=["missing", "truncated", "damaged", "another file"],
)
def test_bytes_that_are_not_as_promised(
    server: FaultyServer, tmp_path: Path, data: bytes | None, why: str
) -> None:
    key, result = received(server, tmp_path, {"wheel": "w", "snapshot": SNAPSHOT}, data)
    assert key == "k"
    assert why in result


@pytest.mark.parametrize("offered", [None, {**SNAPSHOT, "pyodide": "1.2.4"}])
def test_nothing_is_fetched_that_does_not_fit(
    server: FaultyServer, tmp_path: Path, offered: dict[str, Any] | None
) -> None:
    key, result = received(server, tmp_path, {"wheel": "w", "snapshot": offered}, BYTES)
    assert key == (offered and "k")
    assert result is None
    assert "/wheel/a.snapshot" not in server.sent


def test_without_an_index_the_worker_has_to_ask_itself(
    server: FaultyServer, tmp_path: Path
) -> None:
    assert received(server, tmp_path, None, None) is None
