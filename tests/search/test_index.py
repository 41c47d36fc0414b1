"""Index: held to a search in numpy by float64, on every tier; what it refuses; what it stores."""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule import Device, Index
from bascule.errors import (
    DeviceLostError,
    InputError,
    LimitError,
    ModelFileError,
    SourceError,
)
from bascule.search import blocks, index_file, store_native, stores
from bascule.search.top import NONE, TopScores, lanes_for
from bascule.weights.journal import Entry, Journal, key_of

TIERS = ["webgpu", "webgpu-limited", "wasm", "cpu"]


@pytest.fixture(params=TIERS)
async def device(request: pytest.FixtureRequest) -> AsyncIterator[Device]:
    async with await bascule.open_device(request.param, remember=False) as device:
        yield device


@pytest.fixture
async def cpu() -> AsyncIterator[Device]:
    async with await bascule.open_device("cpu") as device:
        yield device


def exact(rows: np.ndarray, queries: np.ndarray, metric: str) -> np.ndarray:
    """All scores, by float64."""
    wide, asked = rows.astype(np.float64), queries.astype(np.float64)
    if metric == "cosine":
        wide /= np.linalg.norm(wide, axis=1, keepdims=True)
        asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    return asked @ wide.T


def check(found: Any, scores: np.ndarray, k: int) -> None:
    """Each score belongs to its row, they fall, and no row that was left out is better."""
    k = min(k, scores.shape[1])
    places = np.array(found.keys, int).reshape(len(scores), k)
    assert found.scores.shape == (len(scores), k)
    assert found.scores.dtype == np.float32
    allowed = 1e-5 * max(1.0, float(np.abs(scores).max(initial=0)))
    right = np.take_along_axis(scores, places, 1)
    np.testing.assert_allclose(found.scores, right, rtol=0, atol=allowed)
    assert all(len(set(row)) == k for row in places.tolist())
    assert (np.diff(found.scores, axis=1) <= 0).all()
    best = -np.sort(-scores, axis=1)[:, :k]
    np.testing.assert_allclose(found.scores, best, rtol=0, atol=allowed)


@pytest.mark.parametrize(
    ("n", "dim", "asked", "k"),
    [(1, 1, 1, 1), (7, 3, 2, 10), (513, 33, 65, 10), (2000, 130, 3, 1), (700, 64, 5, 600)],
)
@pytest.mark.parametrize("metric", ["cosine", "dot"])
async def test_the_best_are_those_of_float64(
    device: Device, metric: Any, n: int, dim: int, asked: int, k: int, rng: np.random.Generator
) -> None:
    rows = rng.standard_normal((n, dim)).astype(np.float32) * 3
    queries = rng.standard_normal((asked, dim)).astype(np.float32)
    async with Index(device, dim, metric=metric) as index:
        at = 0
        for part in np.array_split(rows, min(n, 4)):
            assert await index.add(part) == list(range(at, at + len(part)))
            at += len(part)
        check(await index.search(queries, k), exact(rows, queries, metric), k)
        one = await index.search(queries[0], k)
        assert one.scores.shape == (min(k, n),)
        many = await index.search(queries[:1], k)
        assert many.keys == [one.keys]


async def test_equal_scores_keep_the_order_in_which_rows_came(
    device: Device, rng: np.random.Generator
) -> None:
    few = rng.integers(-1, 2, (7, 4)).astype(np.float32)
    few[0] = 1, 0, 0, 1
    rows = few[rng.integers(0, 7, 3000)]
    async with Index(device, 4, metric="dot") as index:
        for part in np.array_split(rows, 5):
            await index.add(part)
        result = await index.search(few, 50)
    scores = few.astype(np.float64) @ rows.T.astype(np.float64)
    np.testing.assert_array_equal(result.keys, np.argsort(-scores, axis=1, kind="stable")[:, :50])


@pytest.mark.parametrize(("n", "k"), [(1, 5), (512, 1), (513, 1), (9001, 30), (40_000, 8)])
async def test_the_selection_by_itself(
    device: Device, n: int, k: int, rng: np.random.Generator
) -> None:
    """From a row with more room than scores, into the middle of poisoned buffers."""
    scores = rng.standard_normal((3, n + 13)).astype(np.float32)
    scores[:, n:] = 1e9
    top = TopScores(device.kernel_device)
    assert (lanes_for(n, k) == 1) == (n <= 512)
    held = await device.buffer(scores)
    best = await device.buffer(np.full(3 * k + 10, np.nan, np.float32))
    ids = await device.buffer(np.full(3 * k + 10, 77, np.uint32))
    await top.choose(held, n, k, 100, (best, ids), 5)
    result, where = await best.numpy(), await ids.numpy()
    assert np.isnan(result[[*range(5), *range(-5, 0)]]).all()
    assert (where[[*range(5), *range(-5, 0)]] == 77).all()
    order = np.argsort(-scores[:, :n], axis=1, kind="stable")[:, :k]
    inside = np.full((3, k), NONE)
    inside[:, : order.shape[1]] = order + 100
    np.testing.assert_array_equal(where[5:-5].reshape(3, k), inside)
    best_scores = np.take_along_axis(scores, order, 1)
    np.testing.assert_array_equal(result[5:-5].reshape(3, k)[:, : order.shape[1]], best_scores)
    top.close()


async def test_rows_are_copied_once_and_freed(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the driver counts: rows, and a last block that is at most as large as those before."""
    monkeypatch.setattr(blocks, "_MAX_BLOCK_NBYTES", 1 << 20)
    async with await bascule.open_device("webgpu") as device:
        before = device.memory().now_nbytes
        index = Index(device, 64)
        for _ in range(10):
            await index.add(rng.standard_normal((2000, 64)))
        assert 20_000 * 256 <= index.nbytes <= 20_000 * 256 + (1 << 20)
        assert device.memory().now_nbytes - before == index.nbytes
        assert {block.buffer.nbytes for block in index._blocks.listed[3:]} == {1 << 20}  # pyright: ignore[reportPrivateUsage]
        await index.search(rng.standard_normal((3, 64)))
        held = device.memory().now_nbytes
        for _ in range(5):
            await index.search(rng.standard_normal((3, 64)))
        assert device.memory().now_nbytes == held
        assert await index.remove(range(20_000)) == 20_000
        assert index.nbytes == 0
        index.close()
        assert "buffers" not in device.memory().by_kind


async def test_an_addition_that_does_not_fit_adds_nothing(
    cpu: Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(cpu, 8)
    await index.add(rng.standard_normal((200, 8)))
    pool = cpu.kernel_device.pool
    monkeypatch.setattr(blocks, "_MAX_BLOCK_NBYTES", 256 * 32)
    real, left = pool.empty, [1]

    def scarce(*arguments: Any) -> Any:
        if not left:
            raise LimitError("An index", "8,192 bytes", "none are free")
        left.pop()
        return real(*arguments)

    monkeypatch.setattr(pool, "empty", scarce)
    with pytest.raises(LimitError):
        await index.add(rng.standard_normal((1000, 8)))
    assert (len(index), index.nbytes, index.keys) == (200, 256 * 32, list(range(200)))
    monkeypatch.undo()
    assert (await index.add(rng.standard_normal(8))) == [200]


async def test_keys_and_removal(cpu: Device, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1000, 5)).astype(np.float32)
    names = [f"text {i}" if i % 2 else i for i in range(1000)]
    index = Index(cpu, 5)
    assert await index.add(rows, names) == names
    assert (await index.search(rows[321], 1)).keys == ["text 321"]
    gone = set(rng.choice(1000, 400, replace=False).tolist())
    assert await index.remove([names[i] for i in gone]) == 400
    kept = [i for i in range(1000) if i not in gone]
    assert index.keys == [names[i] for i in kept]
    result = await index.search(rows, 3)
    order = np.argsort(-exact(rows[kept], rows, "cosine"), axis=1)[:, 0]
    assert [row[0] for row in result.keys] == [names[kept[i]] for i in order]
    # Numbers that are given go on where no key is.
    assert all(key not in names for key in await index.add(rows[:3]))
    for given in (["text 1", "text 1"], [1.5, 2], [True, 7]):
        with pytest.raises(InputError, match=r"keys\[[01]\]"):
            await index.add(rows[:2], given)  # type: ignore[arg-type]
    size = len(index)
    with pytest.raises(InputError, match="'not there'"):
        await index.remove([index.keys[0], "not there"])
    assert len(index) == size


NAN = np.array([[1, np.nan]], np.float32)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.ones((2, 3)), r"shape \(n, 2\) or \(2,\), found shape \(2, 3\)"),
        (np.ones((1, 1, 2)), "found shape"),
        ([["a", "b"]], "dtype <U1"),
        ([[1, 2], [3]], "rows of 2 numbers"),
        (NAN, "finite numbers up to 7.1e.17, found nan"),
        (np.array([[np.inf, 1]]), "found inf"),
        (np.array([[1, 1], [0, 0]]), "all zeros, found one, row 1"),
    ],
)
async def test_bad_rows(cpu: Device, rows: Any, words: str) -> None:
    index = Index(cpu, 2)
    await index.add([1, 0])
    with pytest.raises(InputError, match=words):
        await index.add(rows)
    with pytest.raises(InputError, match=words):
        await index.search(rows)
    assert len(index) == 1
    assert (await index.search([1, 1])).keys == [0]


async def test_other_mistakes(cpu: Device) -> None:
    for arguments, words in (
        ((None, 4), "a Device of open_device"),
        ((cpu, 0), "dim: expected a whole number from 1 to 65,536"),
    ):
        with pytest.raises(InputError, match=words):
            Index(*arguments)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'cosine' or 'dot'"):
        Index(cpu, 4, metric="l2")  # type: ignore[arg-type]
    index = Index(cpu, 4)
    nothing = await index.search(np.ones((2, 4)))
    assert nothing.scores.shape == (2, 0)
    assert nothing.keys == [[], []]
    assert (await index.add(np.empty((0, 4)))) == []
    for k in (0, 1025, 2.5):
        with pytest.raises(InputError, match="from 1 to 1,024"):
            await index.search(np.ones(4), k)  # type: ignore[arg-type]
    for name in ("", "a\nb", "x" * 201, None):
        with pytest.raises(InputError, match="printable"):
            await index.save(name)  # type: ignore[arg-type]
    index.close()
    index.close()
    for call in (index.add([1, 2, 3, 4]), index.search([1, 2, 3, 4]), index.save("x")):
        with pytest.raises(InputError, match="one that was closed"):
            await call


async def test_a_lost_device(rng: np.random.Generator) -> None:
    async with await bascule.open_device("webgpu") as device:
        index = Index(device, 4)
        await index.add(rng.standard_normal((10, 4)))
        await index.save("before")
        device.backend.gpu._device.destroy()  # type: ignore[attr-defined]
        with pytest.raises(DeviceLostError):
            await index.search(np.ones(4))
        again = await Index.load(device, "before")
        assert len((await again.search(np.ones(4))).keys) == 10


@pytest.mark.parametrize("metric", ["cosine", "dot"])
async def test_saved_and_loaded(device: Device, metric: Any, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((1000, 37)).astype(np.float32)
    queries = rng.standard_normal((4, 37))
    async with Index(device, 37, metric=metric) as index:
        await index.add(rows, [f"🙂 {i}" for i in range(999)] + [5])  # type: ignore[list-item]
        expected = await index.search(queries)
        nbytes = await index.save("texts")
        (kept,) = await indexes()
        assert (kept.location, kept.kind) == ("bascule-index:texts", "index")
        assert kept.nbytes == kept.stored_nbytes == nbytes
        await index.add(rows[0])  # a later one takes its place
        assert await index.save("texts") > nbytes
        assert len(await indexes()) == 1
    async with await Index.load(device, "texts") as loaded:
        assert (loaded.dim, loaded.metric, len(loaded)) == (37, metric, 1001)
        await loaded.remove([loaded.keys[-1]])
        result = await loaded.search(queries)
        assert result.keys == expected.keys
        np.testing.assert_allclose(result.scores, expected.scores, rtol=0, atol=1e-5)
    assert await bascule.cache.verify() == {}
    assert await bascule.cache.rm(["bascule-index:texts"]) == 1
    with pytest.raises(InputError, match="stored index, found 'texts'"):
        await Index.load(device, "texts")


async def test_a_save_that_fails_leaves_what_was_there(
    cpu: Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "CHUNK_NBYTES", 1024)
    monkeypatch.setattr(store_native, "CHUNK_NBYTES", 1024)
    index = Index(cpu, 4)
    await index.add(rng.standard_normal((100, 4)))
    await index.save("a")
    await index.add(rng.standard_normal((300, 4)))
    chunks = files()
    real, left = Journal.keep, [3]

    def full(journal: Journal, digest: str, data: bytes) -> None:
        left[0] -= 1
        if not left[0]:
            raise asyncio.CancelledError
        real(journal, digest, data)

    monkeypatch.setattr(Journal, "keep", full)
    with pytest.raises(asyncio.CancelledError):
        await index.save("a")
    assert files() == chunks
    assert len(await Index.load(cpu, "a")) == 100
    monkeypatch.setattr(Journal, "keep", real)
    monkeypatch.setenv("BASCULE_CACHE_MOST_GB", "0.000001")
    with pytest.raises(SourceError, match="no room for"):
        await index.save("b")
    assert [kept.location for kept in await indexes()] == ["bascule-index:a"]


def files() -> set[Path]:
    """The chunks that are stored."""
    folder = Journal()._chunks  # pyright: ignore[reportPrivateUsage]
    return {path for path in folder.rglob("*") if path.is_file()}


async def indexes() -> list[bascule.cache.CachedItem]:
    """The indexes that are stored."""
    return [kept for kept in await bascule.cache.ls() if kept.kind == "index"]


def stored(data: bytes) -> None:
    """Put bytes where the index "bad" would be, with right hashes."""
    journal = Journal()
    digest = hashlib.sha256(data).hexdigest()
    journal.keep(digest, data)
    url = "bascule-index:bad"
    journal.save(key_of(url), Entry(url, len(data), stores.CHUNK_NBYTES, [digest] if data else []))


def file_of(header: Any, data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def header(**other: Any) -> dict[str, Any]:
    return {
        "__metadata__": {"kind": "bascule-index-1", "metric": "dot"},
        "rows": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "keys": {"dtype": "U8", "shape": [5], "data_offsets": [8, 13]},
        **other,
    }


ROWS = np.ones(2, np.float32).tobytes()
OTHER_METRIC = {"kind": "bascule-index-1", "metric": "x"}
WHOLE = {"dtype": "U32", "shape": [2, 1], "data_offsets": [0, 8]}
EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends after 0 bytes"),
        (b"\xff" * 100, "header claims"),
        (file_of(header(), ROWS + b"[0,1]")[:-1], "header describes"),
        (file_of(header(__metadata__={}), ROWS + b"[0,1]"), "not an index"),
        (file_of(header(__metadata__=OTHER_METRIC), ROWS + b"[0,1]"), "not an index"),
        (file_of(header(), ROWS + b"[0,0]"), "a key each, all different"),
        (file_of(header(), ROWS + b"[1.5]"), "a key each"),
        (file_of(header(), ROWS + b"[[0]]"), "a key each"),
        (file_of(header(), ROWS + b"[0,1}"), "not sound"),
        (file_of(header(), b"\xff" * 8 + b"[0,1]"), "finite"),
        (file_of(header(rows=WHOLE), ROWS + b"[0,1]"), "not an index"),
        (file_of({f"t{i}": EMPTY for i in range(99)}, b""), "header claims"),
    ],
)
async def test_what_is_stored_is_not_trusted(cpu: Device, data: bytes, words: str) -> None:
    stored(data)
    with pytest.raises((ModelFileError, InputError), match=words):
        await Index.load(cpu, "bad")
    assert cpu.memory().by_kind.get("buffers", 0) == 0


async def test_damaged_chunks_and_random_bytes(cpu: Device, rng: np.random.Generator) -> None:
    index = Index(cpu, 3)
    await index.add(rng.standard_normal((50, 3)))
    await index.save("bad")
    (chunk,) = files()
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-1] + b"!")
    with pytest.raises(ModelFileError, match="chunk 0 is missing or damaged"):
        await Index.load(cpu, "bad")
    for _ in range(200):
        bad = bytearray(good)
        bad[int(rng.integers(0, len(bad)))] ^= 1 << int(rng.integers(0, 8))
        stored(bytes(bad))
        with suppress(ModelFileError, InputError):
            (await Index.load(cpu, "bad")).close()
    assert index_file.frame(3, "dot", [])[1] == b"[]"


async def test_cancelling_frees_what_was_loaded(
    cpu: Device, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(cpu, 3)
    await index.add(rng.standard_normal((500, 3)))
    await index.save("a")
    index.close()

    async def stopped(self: Any) -> Any:
        raise asyncio.CancelledError

    monkeypatch.setattr(index_file.IndexReader, "keys", stopped)
    with pytest.raises(asyncio.CancelledError):
        await Index.load(cpu, "a")
    assert cpu.memory().by_kind.get("buffers", 0) == 0


async def test_searches_and_changes_at_once(cpu: Device, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((400, 6)).astype(np.float32)
    index = Index(cpu, 6)
    await index.add(rows[:100])

    async def grow() -> None:
        for i in range(100, 400, 50):
            await index.add(rows[i : i + 50])
            await index.remove([i])

    async def ask() -> None:
        for _ in range(20):
            result = await index.search(rows[:5], 3)
            assert [row[0] for row in result.keys] == [0, 1, 2, 3, 4]

    await asyncio.gather(grow(), ask(), ask())
    assert len(index) == 394
