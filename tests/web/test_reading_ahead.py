"""Chunks are read and hashed while the one before them is used: web/bridge/ run by node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.test_two_readers import CHUNK, SIZE, node
from tests.weights.faulty import FaultyServer

COUNT = -(-SIZE // CHUNK)
# A store that answers late, counts what is asked for at a time, and how much of it is in memory.
SLOW = """
class SlowStore extends OwnStore {
  asked = 0;
  most = 0;
  /** @type {Set<ArrayBuffer>} */
  buffers = new Set();
  async get(name, into) {
    if (!name.startsWith("c-")) return super.get(name, into);
    this.asked += 1;
    this.most = Math.max(this.most, this.asked);
    this.buffers.add(into.buffer);
    await sleep(5);
    this.asked -= 1;
    return super.get(name, into);
  }
}
const slow = new SlowStore(() => {});
const fetcher = new Fetcher(parts, options, slow);
const byteAt = (i) => Math.floor((i * i) / 7) % 256;
const correct = (at, bytes) => bytes.every((byte, i) => byte === byteAt(at + i));
const data = new Uint8Array(new Float64Array([0, SIZE - (SIZE % 4), 0, 0, 3]).buffer);
const table = { getBuffer: () => ({ data, release() {} }) };
let all = true;
const sink = (target, offset, bytes) => { all &&= correct(offset, bytes); };
const stream = (gpu = null) => fetcher.stream(folder, "weights", table, gpu, sink, "", () => {});
await reader().prefetch(folder, { small: [], large: ["weights"] }, 1024, () => {});
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights").write_bytes(bytes(i * i // 7 % 256 for i in range(SIZE)))
    with FaultyServer(tmp_path) as server:
        yield server


def test_two_chunks_are_read_while_one_is_used(server: FaultyServer) -> None:
    all_correct, maximum, buffers, peak = node(
        server,
        SLOW
        + """
        await stream();
        done([all, slow.most, slow.buffers.size, fetcher.peakChunkNbytes]);
        """,
    )
    assert all_correct
    assert maximum == 3  # the one that is waited for among them
    assert buffers == 3  # filled again and again
    assert peak == 3 * CHUNK
    assert server.sent["/m/weights"] == SIZE


def test_a_chunk_that_was_damaged_is_fetched_again(server: FaultyServer) -> None:
    all_correct, buffers, damaged = node(
        server,
        SLOW
        + """
        const entries = await new journal.Journal(slow).entries();
        const { hashes } = entries.find(({ url }) => url.endsWith("/weights"));
        for (const at of [2, 3, 11]) files.set(`c-${hashes[at]}`, new Uint8Array(CHUNK).fill(at));
        await stream();
        const damaged = fetcher.warnings.filter((text) => text.includes("damaged"));
        done([all, slow.buffers.size, damaged]);
        """,
    )
    assert all_correct
    assert buffers == 3
    assert len(damaged) == 1
    assert server.sent["/m/weights"] == SIZE + 3 * CHUNK


def test_a_device_gets_one_chunk_after_the_other(server: FaultyServer) -> None:
    """What waits for the GPU counts among the three chunks that may be in memory."""
    all_correct, maximum, peak = node(
        server,
        SLOW
        + """
        const queue = { submit() {}, onSubmittedWorkDone: () => sleep(1) };
        await stream({ queue, writeBytes: sink });
        done([all, slow.most, fetcher.peakChunkNbytes]);
        """,
    )
    assert all_correct
    assert maximum == 1
    assert peak <= 3 * CHUNK


def test_a_header_that_is_read_in_parts_costs_its_chunk_once(server: FaultyServer) -> None:
    all_correct, heads, given, peak = node(
        server,
        SLOW
        + """
        const heads = [];
        for (const [at, nbytes] of [[0, 256], [8, 9], [0, 256]]) {
          heads.push(correct(at, await fetcher.read(folder, "weights", at, nbytes)));
        }
        await stream();
        const { cached_nbytes: given } = JSON.parse(fetcher.stats(folder));
        done([all, heads.every(Boolean), given, fetcher.peakChunkNbytes]);
        """,
    )
    assert all_correct
    assert heads
    assert given == SIZE
    assert peak == 3 * CHUNK


def test_what_was_forgotten_is_read_anew(server: FaultyServer) -> None:
    first, second = node(
        server,
        SLOW
        + """
        const first = correct(0, await fetcher.read(folder, "weights", 0, 256));
        await fetcher.forget(folder, "weights");
        done([first, correct(0, await fetcher.read(folder, "weights", 0, 256))]);
        """,
    )
    assert first
    assert second
    assert server.sent["/m/weights"] > SIZE
