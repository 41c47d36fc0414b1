"""GGUF files in pages: streamed as they are into GPU buffers, or into memory without a GPU.

tests/weights/test_gguf_loading.py and test_gguf_network.py do the same natively.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.engines import Engine, Page, wait_until
from tests.weights.faulty import Fault, FaultyServer
from tests.weights.gguf_models import CHUNK, FILE, PARAMETERS, expected, gguf_bytes

WHOLE = gguf_bytes(1)
TABLE = [(p.name, p.shape, p.tensors, p.dtype) for p in PARAMETERS]
HASHES = {name: hashlib.sha256(data).hexdigest() for name, data in expected(1).items()}
LOAD = f"""
import hashlib, json
from bascule.program.blocks import BlockMatrix
from bascule.errors import BasculeError
from bascule.program.program import Parameter
from bascule.choosing.auto import open_tier
from bascule.weights.gguf_stream import load_gguf_weights, read_gguf
from bascule.weights.source_browser import PageSource

PARAMETERS = [
    Parameter(name, tuple(shape), tuple(tensors), dtype=dtype)
    for name, shape, tensors, dtype in json.loads({json.dumps(TABLE)!r})
]
RETRY = {{"attempts": 4, "firstDelayMs": 5, "maxDelayMs": 20, "stallMs": 500}}

async def held(backend, store, parameter):
    if backend.tier == "cpu":
        array = store.arrays[parameter.name]
        return bytes(memoryview(array.data if isinstance(array, BlockMatrix) else array).cast("B"))
    found = bytearray(parameter.nbytes)
    await backend.gpu.read(store.targets[parameter.name], 0, found)
    return found

async def load(url, tier, hashes=None, chunk_nbytes={CHUNK}):
    source = PageSource(url, hashes, chunk_nbytes, retry=RETRY)
    backend = (await open_tier(tier)).backend
    try:
        header = await read_gguf(source)
        store = backend.store(PARAMETERS)
        await load_gguf_weights(source, "{FILE}", header, PARAMETERS, store)
        found = {{"stats": dict(source.stats)}}
        for p in PARAMETERS:
            found[p.name] = hashlib.sha256(await held(backend, store, p)).hexdigest()
        return found
    except BasculeError as error:
        return {{"error": error.category, "told": str(error)}}
    finally:
        source.release()
        backend.close()
"""
AHEAD = """async (model) => {
  const worker = new Worker("/prefetch.js", { type: "module" });
  const wheel = new URL("/wheel/index.json", location).href;
  const checked = new MessageChannel().port1;
  worker.postMessage({ model, models: "/models/", wheel, checked }, [checked]);
  globalThis.ahead = worker;
}"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """Another origin, with copies of the model for as many cases as a test has."""
    for name in ("m", "drop", "early", "corrupt", "cut"):
        (tmp_path / name).mkdir()
        (tmp_path / name / FILE).write_bytes(WHOLE)
    with FaultyServer(tmp_path) as result:
        yield result


@pytest.fixture
def lab(shared_lab: Page) -> Callable[..., Any]:
    shared_lab.run("(code) => lab.run(code)", LOAD)

    def run(code: str) -> Any:
        return json.loads(shared_lab.run("(code) => lab.run(code)", f"json.dumps(await {code})"))

    return run


def tensors_of(found: dict[str, Any]) -> dict[str, str]:
    return {name: found.get(name) for name in HASHES}


def test_gpu_buffers_hold_the_files_bytes(
    webgpu_engine: Engine, server: FaultyServer, lab: Callable[..., Any]
) -> None:
    result = lab(f"load({server.url!r} + '/m', 'webgpu')")
    assert tensors_of(result) == HASHES, result
    assert server.sent[f"/m/{FILE}"] == len(WHOLE)
    result = lab(f"load({server.url!r} + '/m', 'webgpu')")
    assert tensors_of(result) == HASHES, result
    assert result["stats"]["network_nbytes"] == 0


def test_memory_holds_the_files_bytes_over_a_bad_network(
    engine: Engine, server: FaultyServer, lab: Callable[..., Any]
) -> None:
    server.plan(f"drop/{FILE}", Fault("drop", after=50_000), times=3)
    server.plan(f"early/{FILE}", Fault("lying_length_long", after=20_001, extra=0), times=2)
    for name in ("drop", "early"):
        result = lab(f"load({server.url!r} + '/{name}', 'cpu')")
        assert tensors_of(result) == HASHES, (name, result)
    wrong = {FILE: "0" * 64}
    result = lab(f"load({server.url!r} + '/corrupt', 'cpu', {wrong!r})")
    assert result["error"] == "corrupt"
    server.replace(f"cut/{FILE}", WHOLE[:-40])
    result = lab(f"load({server.url!r} + '/cut', 'cpu')")
    assert result["error"] == "model-file", result


def test_the_file_is_fetched_ahead_and_no_other(
    engine: Engine, server: FaultyServer, shared_lab: Page, lab: Callable[..., Any]
) -> None:
    only = {"/m/bascule-manifest.json", f"/m/{FILE}"}
    shared_lab.run(AHEAD, f"{server.url}/m/{FILE}")
    wait_until(lambda: server.sent[f"/m/{FILE}"] == len(WHOLE))
    assert {asked.path for asked in server.requests} == only
    result = lab(f"load({server.url!r} + '/m', 'cpu', None, 4 << 20)")
    assert tensors_of(result) == HASHES, result
    assert server.sent[f"/m/{FILE}"] == len(WHOLE)
    # Of a folder, what has come before tells which files it has.
    shared_lab.run("() => ahead.terminate()")
    server.reset_counts()
    shared_lab.run(AHEAD, f"{server.url}/m")
    wait_until(lambda: any(asked.path == f"/m/{FILE}" for asked in server.requests))
    time.sleep(0.5)
    assert {asked.path for asked in server.requests} == only
    assert not server.sent[f"/m/{FILE}"]
