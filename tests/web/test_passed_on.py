"""Small files that a prefetch has read reach Python's worker: web/bridge/ run by node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.web.test_two_readers import node
from tests.weights.faulty import FaultyServer

SMALL = b'{"small": true}'
# A second visit: all is in the store. `heard` goes where worker.js puts it.
SECOND_VISIT = """
const text = (bytes) => new TextDecoder().decode(bytes);
const wanted = { small: ["config.json", "none.json"], large: [] };
const checked = (globalThis.basculeChecked = new Map());
await reader().prefetch(folder, wanted, 1024, () => {});
const hear = (found) => checked.set(found.url, { ...found, at: performance.now() });
await reader().prefetch(folder, wanted, 1024, hear);
const asked = [];
const store = new OwnStore(() => {});
const get = store.get.bind(store);
store.get = (name, into) => (asked.push(name), get(name, into));
const fetcher = new Fetcher(parts, options, store);
const fault = (promise) => promise.then(text, (error) => error.kind ?? String(error));
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_bytes(SMALL)
    (tmp_path / "m" / "weights").write_bytes(bytes(64))
    with FaultyServer(tmp_path) as server:
        yield server


def test_a_small_file_needs_no_look_at_the_store(server: FaultyServer) -> None:
    first, missing, reads, second, later = node(
        server,
        SECOND_VISIT
        + """
        const first = text(await fetcher.readAll(folder, "config.json", 1024, ""));
        const missing = await fault(fetcher.readAll(folder, "none.json", 1024, ""));
        const reads = asked.length;
        const second = text(await fetcher.readAll(folder, "config.json", 1024, ""));
        done([first, missing, reads, second, asked.length]);
        """,
    )
    assert first == second == SMALL.decode()
    assert missing == "missing"
    assert reads == 0
    assert later > 0  # passed on once
    assert server.sent["/m/config.json"] == len(SMALL)


@pytest.mark.parametrize(
    "spoiled", ["at: -1e9", "bytes: new Uint8Array(2000)"], ids=["old", "larger than allowed"]
)
def test_what_does_not_serve_is_read_from_the_store(server: FaultyServer, spoiled: str) -> None:
    result, reads = node(
        server,
        SECOND_VISIT
        + f"""
        const url = `${{folder}}/config.json`;
        checked.set(url, {{ ...checked.get(url), {spoiled} }});
        done([text(await fetcher.readAll(folder, "config.json", 1024, "")), asked.length]);
        """,
    )
    assert result == SMALL.decode()
    assert reads > 0


def test_a_promised_hash_holds_for_what_is_passed_on(server: FaultyServer) -> None:
    result = node(
        server,
        SECOND_VISIT
        + """
        const url = `${folder}/config.json`;
        const hash = await journal.sha256(checked.get(url).bytes);
        checked.set(url, { ...checked.get(url), bytes: new TextEncoder().encode("spoiled") });
        done(await fault(fetcher.readAll(folder, "config.json", 1024, hash)));
        """,
    )
    assert result == SMALL.decode()


def test_it_is_in_use_once_the_weights_are_there(server: FaultyServer) -> None:
    before, after = node(
        server,
        SECOND_VISIT
        + """
        await fetcher.readAll(folder, "config.json", 1024, "");
        const before = asked.length;
        const data = new Uint8Array(new Float64Array([0, 64, 0, 0, 3]).buffer);
        const table = { getBuffer: () => ({ data, release() {} }) };
        await fetcher.stream(folder, "weights", table, null, () => {}, "", () => {});
        const key = await journal.keyOf(`${folder}/config.json`);
        while (!asked.some((name) => name.includes(key))) await sleep(5);
        done([before, asked.length]);
        """,
    )
    assert before == 0
    assert after > 0
