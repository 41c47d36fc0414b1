"""Pyodide's WebAssembly, compiled by the page before Pyodide asks for it: web/boot.js run by node,
with another module in place of Pyodide's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.weights.faulty import FaultyServer

ROOT = Path(__file__).resolve().parents[2]
# What Pyodide does with its WebAssembly, and another request meanwhile.
START = """
import { withModule } from "./web/boot.js";
import { receiveShipped } from "./web/shipped.js";
const own = await WebAssembly.compile(new Uint8Array(OWN));
const { port1, port2 } = new MessageChannel();
const { module } = receiveShipped(port2);
const before = [fetch, WebAssembly.instantiateStreaming];
for (const { type, module } of MESSAGES) port1.postMessage({ type, module: module && own });
const found = await withModule(FOLDER, module, async () => {
  const other = await (await fetch(`${FOLDER}other`)).text();
  const answer = fetch(`${FOLDER}pyodide.asm.wasm`);
  const { instance } = await WebAssembly.instantiateStreaming(answer, {});
  return [other, instance.exports.answer()];
}).catch((error) => error.name);
const after = [fetch, WebAssembly.instantiateStreaming];
console.log(JSON.stringify([found, after.every((each, at) => each === before[at])]));
process.exit();
"""


def module(answer: int) -> bytes:
    """(module (func (export "answer") (result i32) i32.const ANSWER)), an answer below 64."""
    head = bytes.fromhex("0061736d01000000 010501600001 7f 03020100 070a0106616e7377657200 00")
    return head + bytes.fromhex("0a06010400 41") + bytes([answer]) + bytes.fromhex("0b")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "pyodide.asm.wasm").write_bytes(module(41))
    (tmp_path / "other").write_text("other")
    with FaultyServer(tmp_path) as server:
        yield server


def started(server: FaultyServer, messages: list[dict[str, Any]]) -> Any:
    values = {"OWN": list(module(42)), "FOLDER": f"{server.url}/", "MESSAGES": messages}
    known = "".join(f"const {name} = {json.dumps(value)};\n" for name, value in values.items())
    command = ["node", "--input-type=module", "-e", known + START]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=60)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_pyodide_gets_the_module_that_the_page_has_compiled(server: FaultyServer) -> None:
    messages = [{"type": "module", "module": True}, {"type": "end"}]
    assert started(server, messages) == [["other", 42], True]
    assert server.count("pyodide.asm.wasm") == 0


@pytest.mark.parametrize(
    "messages",
    [[{"type": "module", "module": None}, {"type": "end"}], [{"type": "end"}]],
    ids=["not compiled", "lost on its way"],
)
def test_pyodide_compiles_what_the_page_could_not(
    server: FaultyServer, messages: list[dict[str, Any]]
) -> None:
    assert started(server, messages) == [["other", 41], True]
    assert server.count("pyodide.asm.wasm") == 1


def test_what_fails_leaves_the_thread_as_it_was(server: FaultyServer, tmp_path: Path) -> None:
    (tmp_path / "pyodide.asm.wasm").write_bytes(b"no module")
    assert started(server, [{"type": "end"}]) == ["CompileError", True]
