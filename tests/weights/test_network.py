"""Loading over a network that drops, stalls and lies, natively.

e2e/test_network.py does the same in pages.
"""

from __future__ import annotations

import asyncio
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import httpx
import numpy as np
import pytest
from safetensors.numpy import save

from bascule.backend.host_arrays import ReferenceStore
from bascule.errors import (
    FileMissingError,
    HashMismatchError,
    ModelFileError,
    SourceError,
)
from bascule.program.program import Parameter
from bascule.server.app import create_app
from bascule.server.run import running
from bascule.weights.journal import Journal, key_of
from bascule.weights.manifest import make_manifest
from bascule.weights.names import MANIFEST
from bascule.weights.remote import RetryPolicy, refuse_downgrade
from bascule.weights.source import FileSource
from bascule.weights.source_http import HttpSource
from bascule.weights.stream import load_weights
from tests.weights.faulty import Fault, FaultyServer

CHUNK = 1 << 16
FILE = "model.safetensors"
LARGE = 20_000  # faults that spoil weights leave headers alone
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01, max_delay_s=0.02, stall_s=0.4, max_wait_s=2)
# 600 KB in ten chunks, whose edges cut through elements: the header's length is odd on purpose.
SHAPES = {"first": (301, 97), "second": (50_021,), "half": (40_003,), "last": (211, 103)}
PARAMETERS = tuple(Parameter(name, shape, (name,)) for name, shape in SHAPES.items())


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {n: rng.standard_normal(s).astype(np.float32) for n, s in SHAPES.items()}
    return {**made, "half": made["half"].astype(np.float16)}


def safetensors_bytes(seed: int) -> bytes:
    """A file whose data begins at an odd offset."""
    whole = save(tensors(seed))
    length = int.from_bytes(whole[:8], "little")
    return (length + 3).to_bytes(8, "little") + whole[8 : 8 + length] + b"   " + whole[8 + length :]


@dataclass
class Site:
    server: FaultyServer
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.server.url}/m"

    def weights_sent(self) -> int:
        return self.server.sent[f"/m/{FILE}"]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site" / "m"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(safetensors_bytes(1))
    with FaultyServer(folder.parent) as server:
        yield Site(server, folder)


def poisoned() -> ReferenceStore:
    store = ReferenceStore(PARAMETERS)
    for array in store.arrays.values():
        array.fill(np.nan)
    return store


def assert_is(store: ReferenceStore, seed: int) -> None:
    for name, wanted in tensors(seed).items():
        np.testing.assert_array_equal(store.arrays[name], wanted.astype(np.float32))


async def load(
    url: str,
    *,
    retry: RetryPolicy = QUICK,
    on_bytes: Callable[[int], None] | None = None,
    **options: object,
) -> tuple[ReferenceStore, HttpSource]:
    source = HttpSource(url, chunk_nbytes=CHUNK, retry=retry, **options)  # type: ignore[arg-type]
    store = poisoned()
    notify = None if on_bytes is None else lambda p: on_bytes(p.done)
    try:
        await load_weights(source, PARAMETERS, store, progress=notify)
    finally:
        await source.settle()
        source.release()
    return store, source


async def test_the_second_time_nothing_is_fetched(site: Site) -> None:
    store, _ = await load(site.url)
    assert_is(store, 1)
    whole = site.weights_sent()
    assert whole == len(safetensors_bytes(1))
    store, source = await load(site.url)
    assert_is(store, 1)
    assert site.weights_sent() == whole
    assert source.stats["network_nbytes"] == 0


async def test_with_the_server_gone_what_was_loaded_loads(site: Site) -> None:
    await load(site.url)
    site.server.down()
    store, _ = await load(site.url)
    assert_is(store, 1)


async def test_with_the_server_gone_from_the_start() -> None:
    with pytest.raises(SourceError, match=r"connection failed.*tried 4 times"):
        await load("http://127.0.0.1:9/x")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", LARGE),
        Fault("drop", LARGE, after=3),
        Fault("truncate", LARGE),
        Fault("lying_length_long", LARGE, after=20_001, extra=0),
        Fault("lying_length_short", LARGE),
        Fault("wrong_range", LARGE),
        Fault("no_content_range", LARGE),
        Fault("status", LARGE, status=503),
        Fault("status", LARGE, status=429, retry_after=0),
        Fault("status", LARGE, status=503, retry_after=formatdate(usegmt=True)),
        Fault("stall", LARGE, after=30_000, seconds=5),
        Fault("stall_headers", seconds=5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after}-{fault.status}",
)
async def test_a_fault_that_passes_is_survived(site: Site, fault: Fault) -> None:
    site.server.plan(FILE, fault, times=2)
    store, source = await load(site.url)
    assert_is(store, 1)
    assert source.stats["network_retries"] >= 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("overlong"),
        Fault("lying_length_long", LARGE),
        Fault("whole"),
        Fault("no_length", LARGE),
        Fault("weak_etag"),
        Fault("no_etag"),
        Fault("slow", LARGE, bytes_per_second=600_000),
        Fault("status", status=405),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_servers_own_way_is_borne(site: Site, fault: Fault) -> None:
    site.server.plan(FILE, fault, times=1 if fault.status == 405 else None)
    if fault.kind == "status":
        store = poisoned()
        source = HttpSource(site.url, chunk_nbytes=CHUNK, retry=QUICK)
        with pytest.raises(SourceError, match="405"):
            await load_weights(source, PARAMETERS, store)
        await source.settle()
    store, _ = await load(site.url)
    assert_is(store, 1)
    site.server.down()
    store, _ = await load(site.url)
    assert_is(store, 1)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Fault("status", LARGE, status=503), r"answered 503 \(bytes [\d,]+ to [\d,]+\), tried 4"),
        (Fault("status", LARGE, status=503, retry_after=3600), "503 and asks to wait 3600 s"),
        (Fault("status", LARGE, status=403), "answered 403"),
        (Fault("status", LARGE, status=404), "no such file"),
        (Fault("drop", LARGE, after=0), r"connection failed .* tried 4 times"),
        (Fault("wrong_range", LARGE), "another range"),
        (Fault("no_content_range", LARGE), "without its Content-Range"),
        (Fault("encoded", LARGE), "compressed"),
        (Fault("stall", LARGE, after=0, seconds=5), r"nothing came for 0\.4 s"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
async def test_a_fault_that_stays_is_told(site: Site, fault: Fault, told: str) -> None:
    site.server.plan(FILE, fault)
    with pytest.raises(SourceError, match=told) as caught:
        await load(site.url)
    assert site.url in str(caught.value)
    assert caught.value.hint
    site.server.heal()
    store, _ = await load(site.url)
    assert_is(store, 1)


async def test_redirects_are_followed_and_not_for_ever(site: Site) -> None:
    # A copy with its time: across the turn of a second it would be another version.
    shutil.copy2(site.folder / FILE, site.folder / "moved.bin")
    site.server.plan(FILE, Fault("redirect", location="/m/moved.bin"))
    store, _ = await load(site.url)
    assert_is(store, 1)
    site.server.heal()
    (site.folder.parent / "other").mkdir()
    (site.folder.parent / "other" / FILE).write_bytes(safetensors_bytes(1))
    site.server.plan("other/" + FILE, Fault("redirect", location=f"/other/{FILE}"))
    with pytest.raises(SourceError, match="redirects"):
        await load(f"{site.server.url}/other")


async def test_a_redirect_off_tls_is_refused() -> None:
    request = httpx.Request("GET", "https://host/x")
    response = httpx.Response(302, headers={"Location": "http://host/x"}, request=request)
    response.next_request = httpx.Request("GET", "http://host/x")
    with pytest.raises(SourceError, match="https to http"):
        await refuse_downgrade(response)


async def test_a_file_that_changes_meanwhile_is_never_mixed(site: Site) -> None:
    site.server.plan(FILE, Fault("drop", LARGE, after=200_000), times=1)
    changed = False

    def change(done: int) -> None:
        nonlocal changed
        if done > 100_000 and not changed:
            changed = True
            site.server.replace(f"m/{FILE}", safetensors_bytes(2))

    store, _ = await load(site.url, on_bytes=change)
    assert changed
    assert_is(store, 2)
    # The next time the server is asked, and it is the new version that is kept.
    store, source = await load(site.url)
    assert_is(store, 2)
    assert source.stats["network_nbytes"] == 0


async def test_a_new_version_is_seen_at_the_next_load(site: Site) -> None:
    await load(site.url)
    site.server.replace(f"m/{FILE}", safetensors_bytes(3))
    store, _ = await load(site.url)
    assert_is(store, 3)
    assert len(Journal().entries()) == 2  # the file, and the manifest that is not there


async def test_a_connection_that_drops_at_20_random_points(
    site: Site, rng: np.random.Generator
) -> None:
    for _ in range(20):
        site.server.plan(FILE, Fault("drop", LARGE, after=int(rng.integers(1, 25_000))), times=1)
    store, _ = await load(site.url, retry=RetryPolicy(30, 0.001, 0.002, 5, 1))
    assert_is(store, 1)
    assert site.server.count(FILE, 206) > 20
    assert site.weights_sent() <= len(safetensors_bytes(1)) + 20 * CHUNK


async def test_what_was_interrupted_goes_on_where_it_stopped(site: Site) -> None:
    async def cancelled_at(nbytes: int) -> None:
        def stop(done: int) -> None:
            if done > nbytes:
                task.cancel()

        task = asyncio.ensure_future(load(site.url, on_bytes=stop))
        with pytest.raises(asyncio.CancelledError):
            await task

    await cancelled_at(100_000)
    await cancelled_at(300_000)
    site.server.reset_counts()
    store, source = await load(site.url)
    assert_is(store, 1)
    assert 0 < source.stats["network_nbytes"] <= len(safetensors_bytes(1)) - 300_000 + CHUNK


async def test_a_damaged_chunk_is_fetched_again_once(site: Site, weights_home: Path) -> None:
    await load(site.url)
    chunks = sorted((weights_home / "chunks").rglob("*"), key=lambda p: p.stat().st_size)
    chunks[-1].write_bytes(chunks[-1].read_bytes()[: CHUNK // 2])  # half-written
    site.server.reset_counts()
    with pytest.warns(UserWarning, match="damaged in the cache"):
        store, _ = await load(site.url)
    assert_is(store, 1)
    assert site.weights_sent() == CHUNK


@pytest.mark.parametrize("spoilt", [b"", b"{", b"[]", b'{"url": 3}', b'{"v":1,"hashes":["../x"]}'])
async def test_a_damaged_journal_costs_a_load_and_nothing_else(
    site: Site, weights_home: Path, spoilt: bytes
) -> None:
    await load(site.url)
    for path in (weights_home / "files").glob("*.json"):
        path.write_bytes(spoilt)
    store, _ = await load(site.url)
    assert_is(store, 1)


async def test_a_wrong_hash_is_loaded_again_once_and_refused(site: Site) -> None:
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(HashMismatchError, match="SHA-256"),
    ):
        await load(site.url, hashes={FILE: "0" * 64})
    assert site.weights_sent() <= 2 * len(safetensors_bytes(1)) + 8
    assert not [e for e in Journal().entries() if e.stored_nbytes]  # nothing of it was kept


def write_manifest(folder: Path) -> None:
    files = {FILE: folder / FILE}
    (folder / MANIFEST).write_bytes(make_manifest(folder, files, CHUNK, lambda _: None))


async def test_a_manifest_catches_a_byte_that_flips_once(site: Site) -> None:
    write_manifest(site.folder)
    site.server.plan(FILE, Fault("corrupt", LARGE, at=333_333), times=1)
    store, _ = await load(site.url)
    assert_is(store, 1)


async def test_a_manifest_refuses_a_byte_that_stays_wrong(site: Site) -> None:
    write_manifest(site.folder)
    site.server.plan(FILE, Fault("corrupt", at=333_333))
    written: list[int] = []
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(HashMismatchError, match="manifest") as caught,
    ):
        await load(site.url, on_bytes=written.append)
    assert f"{333_333 // CHUNK * CHUNK:,}" in str(caught.value)
    assert max(written) <= 333_333  # the bad chunk was never used


async def test_models_share_their_chunks(site: Site) -> None:
    other = site.folder.parent / "other"
    other.mkdir()
    (other / FILE).write_bytes((site.folder / FILE).read_bytes())
    write_manifest(site.folder)
    write_manifest(other)
    await load(site.url)
    store, source = await load(f"{site.server.url}/other")
    assert_is(store, 1)
    assert site.server.sent[f"/other/{FILE}"] == 0
    assert source.stats["cached_nbytes"] >= len(safetensors_bytes(1))
    Journal().remove([key_of(f"{site.url}/{FILE}")])
    site.server.down()
    store, _ = await load(f"{site.server.url}/other")
    assert_is(store, 1)


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        (b'{"version": 2}', "version 1"),
        (b'{"version": 1, "chunk', "damaged or truncated"),
        (b'{"version": 1, "chunk_nbytes": 1, "files": {}}', "chunk_nbytes"),
        (b'{"version": 1, "chunk_nbytes": 65536, "files": {"x": {"nbytes": -1}}}', "is invalid"),
        (b'{"version": 1, "chunk_nbytes": 65536, "files": []}', "names no files"),
    ],
)
async def test_a_hostile_manifest_is_refused(site: Site, manifest: bytes, told: str) -> None:
    (site.folder / MANIFEST).write_bytes(manifest)
    with pytest.raises(ModelFileError, match=told):
        await load(site.url)


async def test_a_page_in_the_place_of_a_manifest_is_none(site: Site) -> None:
    (site.folder / MANIFEST).write_bytes(b"<!doctype html><title>Not here</title>")
    store, _ = await load(site.url)
    assert_is(store, 1)


def stored_by_model() -> dict[str, int]:
    listed = Journal().entries()
    return {e.entry.url.split("/")[-2]: e.stored_nbytes for e in listed if not e.entry.missing}


async def test_little_room_evicts_the_least_recently_used(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seed in (("old", 5), ("used", 6)):
        (site.folder.parent / name).mkdir()
        (site.folder.parent / name / FILE).write_bytes(safetensors_bytes(seed))
    size = len(safetensors_bytes(1))
    monkeypatch.setenv("BASCULE_CACHE_MOST_GB", str(2.5 * size / 1e9))
    await load(f"{site.server.url}/old")
    await asyncio.sleep(0.02)
    source = HttpSource(f"{site.server.url}/used", chunk_nbytes=CHUNK, retry=QUICK)
    await load_weights(source, PARAMETERS, poisoned())  # stays in use
    await load(site.url)
    stored = stored_by_model()
    assert stored["m"] == stored["used"] == size
    assert "old" not in stored
    monkeypatch.setenv("BASCULE_CACHE_MOST_GB", str(0.5 * size / 1e9))
    with pytest.warns(UserWarning, match=r"is not cached: not enough space .*MB missing"):
        store, _ = await load(f"{site.server.url}/old")
    assert_is(store, 5)
    assert stored_by_model()["used"] == size
    await source.settle()
    source.release()


async def test_a_full_disk_is_told_and_the_load_goes_on(site: Site) -> None:
    """A real refusal by the system: files may not grow past half a chunk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (CHUNK // 2, before[1]))
    try:
        with pytest.warns(UserWarning, match="writing to the disk failed"):
            store, _ = await load(site.url)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_is(store, 1)
    store, _ = await load(site.url)
    assert_is(store, 1)


async def test_a_folder_that_cannot_be_written_is_told(site: Site, weights_home: Path) -> None:
    weights_home.write_text("a file in the folder's place")
    with pytest.warns(UserWarning, match="cannot be used"):
        store, _ = await load(site.url)
    assert_is(store, 1)


TWO = """
import asyncio, sys
from tests.weights.test_network import load, assert_is
store, source = asyncio.run(load(sys.argv[1]))
assert_is(store, 1)
"""


async def test_two_processes_at_once_fetch_it_once(site: Site) -> None:
    site.server.plan(FILE, Fault("slow", LARGE, bytes_per_second=300_000))
    command = [sys.executable, "-c", TWO, site.url]
    processes = [await asyncio.create_subprocess_exec(*command) for _ in range(2)]
    assert [await asyncio.wait_for(p.wait(), 60) for p in processes] == [0, 0]
    assert site.weights_sent() == len(safetensors_bytes(1))


HOLD = """
import sys, time
from bascule.weights.journal import Journal, key_of
from filelock import FileLock
path = Journal().lock(key_of(sys.argv[1])).lock_file
with FileLock(path):
    print("held", flush=True)
    time.sleep(60)
"""


async def test_a_slow_holder_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is alive while bytes arrive, although no chunk is complete within `stall_s`."""
    monkeypatch.setattr("bascule.weights.cached.SILENCE_S", 1.0)
    site.server.plan(FILE, Fault("slow", LARGE, bytes_per_second=40_000))
    slow = await asyncio.create_subprocess_exec(sys.executable, "-c", TWO, site.url)
    end = asyncio.get_running_loop().time() + 30
    while not site.weights_sent() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    following = asyncio.ensure_future(load(site.url))
    await asyncio.sleep(5)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    slow.kill()
    await slow.wait()
    asked = [a.headers["range"] for a in site.server.requests if a.status == 206]
    starts = [result.removeprefix("bytes=").split("-")[0] for result in asked]
    assert len(set(starts)) == len(starts)


async def test_a_frozen_holder_is_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bascule.weights.cached.SILENCE_S", 1.0)
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD, f"{site.url}/{FILE}", stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    await holder.stdout.readline()
    store, _ = await load(site.url)
    assert_is(store, 1)
    holder.kill()
    await holder.wait()


def write_far(folder: Path, wanted: np.ndarray) -> None:
    """A sparse model file whose tensor b lies behind one of 4.5 GiB."""
    gap, end = 9 << 29, (9 << 29) + wanted.nbytes
    header = (
        f'{{"a":{{"dtype":"U8","shape":[{gap}],"data_offsets":[0,{gap}]}},'
        f'"b":{{"dtype":"F32","shape":[{wanted.size}],"data_offsets":[{gap},{end}]}}}}'
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("wb") as handle:
        handle.write(len(header).to_bytes(8, "little") + header)
        handle.seek(8 + len(header) + gap)
        handle.write(wanted.tobytes())


async def test_offsets_past_4_gib(tmp_path: Path, rng: np.random.Generator) -> None:
    """A sparse file: the tensor that counts lies behind one of 4.5 GiB that is never read."""
    folder = tmp_path / "models" / "huge"
    wanted = rng.standard_normal(10_007).astype(np.float32)
    write_far(folder, wanted)
    parameters = (Parameter("b", (10_007,), ("b",)),)
    with running(create_app(models=tmp_path / "models", pyodide=tmp_path)) as url:
        for source in (HttpSource(f"{url}/models/huge"), FileSource(folder)):
            store = ReferenceStore(parameters)
            await load_weights(source, parameters, store)
            await source.settle()
            np.testing.assert_array_equal(store.arrays["b"], wanted)


async def test_a_missing_optional_file_is_remembered(site: Site) -> None:
    source = HttpSource(site.url, chunk_nbytes=CHUNK, retry=QUICK)
    with pytest.raises(FileMissingError):
        await source.read("modules.json")
    await source.settle()
    site.server.down()
    again = HttpSource(site.url, chunk_nbytes=CHUNK, retry=QUICK)
    with pytest.raises(FileMissingError):
        await again.read("modules.json")
    await again.settle()
