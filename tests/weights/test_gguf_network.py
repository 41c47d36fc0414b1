"""GGUF files from servers that drop, lie and change: all of the file or an error."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bascule.backend.arrivals import Arrivals
from bascule.base.dtypes import BlockType
from bascule.errors import FileChangedError, HashMismatchError, ModelFileError, SourceError
from bascule.weights.gguf_stream import find_gguf, load_gguf_weights, read_gguf
from bascule.weights.journal import Journal
from bascule.weights.manifest import make_manifest
from bascule.weights.names import MANIFEST
from bascule.weights.remote import RetryPolicy
from bascule.weights.source import FileSource
from bascule.weights.source_http import HttpSource
from tests.weights.faulty import Fault, FaultyServer
from tests.weights.gguf_files import STRING, key, model_file, string
from tests.weights.gguf_models import (
    CHUNK,
    FILE,
    PARAMETERS,
    assert_is,
    gguf_bytes,
    load,
    poisoned,
)

WHOLE = gguf_bytes(1)
LARGE = 20_000
QUICK = RetryPolicy(attempts=4, first_delay_s=0.01, max_delay_s=0.02, stall_s=0.4, max_wait_s=2)


@dataclass
class Site:
    server: FaultyServer
    folder: Path

    @property
    def url(self) -> str:
        return f"{self.server.url}/m"

    def sent(self) -> int:
        return self.server.sent[f"/m/{FILE}"]


@pytest.fixture(autouse=True)
def _short_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a large file: the header comes by itself, and not all weights with it."""
    monkeypatch.setattr("bascule.weights.gguf.FIRST_READ_NBYTES", 256)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site" / "m"
    folder.mkdir(parents=True)
    (folder / FILE).write_bytes(WHOLE)
    with FaultyServer(folder.parent) as server:
        yield Site(server, folder)


def remote(url: str, **options: object) -> HttpSource:
    return HttpSource(url, chunk_nbytes=CHUNK, retry=QUICK, **options)  # type: ignore[arg-type]


async def test_the_name_of_a_folders_file(site: Site) -> None:
    (site.folder.parent / "other").mkdir()
    (site.folder.parent / "other" / "Own-Name.Q4_1.gguf").write_bytes(WHOLE)
    source, other = remote(site.url), remote(f"{site.server.url}/other")
    assert await find_gguf(source) == FILE
    assert await find_gguf(other) is None
    assert_is(await load(other, file="Own-Name.Q4_1.gguf"), 1)
    await source.settle()


async def test_a_file_that_was_cut_short_is_told(site: Site) -> None:
    start = (await read_gguf(FileSource(site.folder))).data_start
    for cut in (0, 3, 10, 100, start - 1, start, len(WHOLE) - 40):
        (site.folder / FILE).write_bytes(WHOLE[:cut])
        with pytest.raises(ModelFileError):
            await load(remote(site.url))


async def test_the_second_time_nothing_is_fetched(site: Site) -> None:
    assert_is(await load(remote(site.url)), 1)
    assert site.sent() == len(WHOLE)  # the header's chunks came once
    site.server.down()
    again = remote(site.url)
    assert_is(await load(again), 1)
    assert again.stats["network_nbytes"] == 0


async def test_without_a_cache(site: Site) -> None:
    source = remote(site.url, journal=None, hashes={FILE: hashlib.sha256(WHOLE).hexdigest()})
    assert_is(await load(source), 1)


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", LARGE),
        Fault("drop", LARGE, after=3),
        Fault("truncate", LARGE),
        Fault("lying_length_long", LARGE, after=20_001, extra=0),
        Fault("lying_length_short", LARGE),
        Fault("overlong", LARGE),
        Fault("whole", LARGE),
        Fault("wrong_range", LARGE),
        Fault("status", LARGE, status=503),
        Fault("stall", LARGE, after=30_000, seconds=5),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after}",
)
async def test_a_fault_that_passes_is_survived(site: Site, fault: Fault) -> None:
    site.server.plan(FILE, fault, times=2)
    assert_is(await load(remote(site.url)), 1)


@pytest.mark.parametrize("kind", ["truncate", "lying_length_short", "drop"])
async def test_a_fault_that_stays_is_told(site: Site, kind: str) -> None:
    site.server.plan(FILE, Fault(kind, LARGE, after=0))  # type: ignore[arg-type]
    with pytest.raises(SourceError, match=site.url):
        await load(remote(site.url))
    site.server.heal()
    assert_is(await load(remote(site.url)), 1)


async def test_new_weights_under_the_old_header_are_never_mixed(site: Site) -> None:
    site.server.plan(FILE, Fault("drop", LARGE, after=60_000), times=8)
    changed = False

    def change(done: int) -> None:
        nonlocal changed
        if done > 100_000 and not changed:
            changed = True
            site.server.replace(f"m/{FILE}", gguf_bytes(2))

    assert_is(await load(remote(site.url), on_bytes=change), 2)


@pytest.mark.parametrize("shorter", [False, True])
async def test_another_model_under_the_same_name_ends_the_load(site: Site, shorter: bool) -> None:
    fresh = gguf_bytes(2, [key("general.name", STRING, string("another"))])
    if shorter:
        fresh = model_file({"x": (BlockType.F32, (9,), bytes(36))})
    site.server.plan(FILE, Fault("drop", LARGE, after=100_000), times=2)
    store = poisoned()
    store.arrivals = Arrivals(p.name for p in PARAMETERS)
    source = remote(site.url)
    header = await read_gguf(source)
    site.server.replace(f"m/{FILE}", fresh)
    with pytest.raises(FileChangedError, match="a different model"):
        await load_gguf_weights(source, FILE, header, PARAMETERS, store)
    assert not store.arrivals.complete
    await source.settle()
    if not shorter:
        assert_is(await load(remote(site.url)), 2)


async def test_what_was_interrupted_goes_on_where_it_stopped(site: Site) -> None:
    def stop(done: int) -> None:
        if done > 250_000:
            task.cancel()

    task = asyncio.ensure_future(load(remote(site.url), on_bytes=stop))
    with pytest.raises(asyncio.CancelledError):
        await task
    site.server.reset_counts()
    source = remote(site.url)
    assert_is(await load(source), 1)
    assert 0 < source.stats["network_nbytes"] <= len(WHOLE) - 250_000 + CHUNK


async def test_a_connection_that_drops_at_20_random_points(
    site: Site, rng: np.random.Generator
) -> None:
    for _ in range(20):
        site.server.plan(FILE, Fault("drop", after=int(rng.integers(1, 25_000))), times=1)
    source = HttpSource(site.url, chunk_nbytes=CHUNK, retry=RetryPolicy(30, 0.001, 0.002, 5, 1))
    assert_is(await load(source), 1)


async def test_a_known_hash_is_compared(site: Site) -> None:
    right = {FILE: hashlib.sha256(WHOLE).hexdigest()}
    for source in (FileSource(site.folder, right), remote(site.url, hashes=right)):
        assert_is(await load(source), 1)
    for source in (
        FileSource(site.folder, {FILE: "0" * 64}),
        remote(site.url, hashes={FILE: "0" * 64}),
    ):
        with (
            pytest.warns(UserWarning, match="loaded again"),
            pytest.raises(HashMismatchError, match="SHA-256"),
        ):
            await load(source)
    assert not [e for e in Journal().entries() if e.stored_nbytes]


def write_manifest(folder: Path) -> None:
    files = {FILE: folder / FILE}
    (folder / MANIFEST).write_bytes(make_manifest(folder, files, CHUNK, lambda _: None))


@pytest.mark.parametrize("at", [40, 333_333])
async def test_a_manifest_catches_a_byte_that_flips(site: Site, at: int) -> None:
    """In the header and in the weights."""
    write_manifest(site.folder)
    site.server.plan(FILE, Fault("corrupt", at=at), times=1)
    assert_is(await load(remote(site.url)), 1)
    Journal().remove([e.key for e in Journal().entries()])
    site.server.plan(FILE, Fault("corrupt", at=at))
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(HashMismatchError, match="manifest"),
    ):
        await load(remote(site.url))


@pytest.mark.filterwarnings("ignore:.*loaded again")
async def test_a_manifest_that_lies_of_the_size(site: Site) -> None:
    write_manifest(site.folder)
    (site.folder / FILE).write_bytes(WHOLE + bytes(99))
    with pytest.raises(HashMismatchError, match="manifest says"):
        await load(FileSource(site.folder))
    # What is asked of a server is what the manifest promises, and that is all there.
    assert_is(await load(remote(site.url)), 1)
    Journal().remove([e.key for e in Journal().entries()])
    (site.folder / FILE).write_bytes(WHOLE[:-99])
    for source in (FileSource(site.folder), remote(site.url)):
        with pytest.raises((SourceError, ModelFileError)):
            await load(source)


async def test_a_local_files_manifest_is_held(site: Site) -> None:
    folder = site.folder
    write_manifest(folder)
    assert_is(await load(FileSource(folder)), 1)
    data = bytearray(WHOLE)
    data[333_333] ^= 1
    (folder / FILE).write_bytes(data)
    with (
        pytest.warns(UserWarning, match="loaded again"),
        pytest.raises(HashMismatchError, match="chunk 5"),
    ):
        await load(FileSource(folder))
