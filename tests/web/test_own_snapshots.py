"""How a browser keeps the snapshots of Python that it makes: web/snapshots.js, run by node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETUP = """
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "one" }, configurable: true });
import { Journal, keyOf } from "./web/bridge/journal.js";
import { Snapshots, snapshotKey } from "./web/snapshots.js";
import { MemoryStore } from "./tests/web/store.mjs";

const MIB = 1 << 20;
const store = new MemoryStore();
const journal = new Journal(store);
const snapshots = new Snapshots(journal);
const noise = (nbytes) => new Uint8Array(nbytes).map((_, i) => Math.imul(i, 2654435761) >>> 24);
const bytes = noise(9 * MIB + 5);
const failure = (work) => work.then(() => "", (error) => error.message);

/** A model of one chunk, used at that time; the last character of its URL stands for the hash. */
async function keepModel(url, nbytes, used) {
  const hash = url.at(-1).repeat(64);
  const entry = { v: 1, seq: 0, url, nbytes, etag: "", modified: "", chunkNbytes: nbytes };
  await store.put(`c-${hash}`, noise(nbytes));
  await journal.save(await keyOf(url), { ...entry, hashes: [hash], sha256: "", missing: false });
  await store.put(`u-${await keyOf(url)}`, new TextEncoder().encode(String(used)));
}
const listed = async () => (await journal.entries()).map(({ url }) => url).sort();
"""


def node(script: str) -> Any:
    """What a script, after SETUP, gives to `done`."""
    code = f"{SETUP}\nconst done = (value) => console.log(JSON.stringify(value));\n{script}"
    command = ["node", "--input-type=module", "-e", code]
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_what_is_kept_comes_back() -> None:
    result = node("""
      await snapshots.store("a", bytes);
      const entry = await snapshots.find("a");
      const again = await snapshots.read(entry);
      const [{ url, storedNbytes }] = await journal.entries();
      const same = Buffer.compare(again, bytes);
      const orphans = await journal.orphans();
      done([same, url, storedNbytes - bytes.length, orphans, await snapshots.find("b")]);
    """)
    assert result == [0, "bascule-snapshot:a", 0, [], None]


FAULTS = {
    "missing": ("store.files.delete(chunk);", "missing"),
    "truncated": ("store.files.set(chunk, store.files.get(chunk).slice(0, 99));", "damaged"),
    "corrupted": ("store.files.get(chunk)[7] ^= 1;", "damaged"),
    "half-written": ("entry.hashes[2] = '';", "whole"),
    "empty": ("Object.assign(entry, { nbytes: 0, hashes: [] });", "whole"),
    "too large": (
        "const [hash] = entry.hashes;"
        "Object.assign(entry, { nbytes: 2 ** 40, chunkNbytes: 2 ** 40, hashes: [hash] });",
        "whole",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_as_it_was_kept(fault: str) -> None:
    code, words = FAULTS[fault]
    result, left = node(f"""
      await snapshots.store("a", bytes);
      const entry = await snapshots.find("a");
      const chunk = `c-${{entry.hashes[1]}}`;
      {code}
      await journal.save(await keyOf(entry.url), entry);
      const told = await failure(snapshots.read(await snapshots.find("a")));
      await snapshots.drop("a");
      done([told, [...store.files.keys()].filter((name) => !name.startsWith("c-"))]);
    """)
    assert words in result
    assert left == []


def test_an_entry_of_another_key_is_not_taken() -> None:
    assert node("""
      await snapshots.store("a", bytes);
      const entry = await snapshots.find("a");
      await journal.save(await keyOf("bascule-snapshot:b"), entry);
      done([await snapshots.find("b"), (await snapshots.find("a")).url]);
    """) == [None, "bascule-snapshot:a"]


@pytest.mark.parametrize("nbytes", [100, 5 << 20, 9 << 20])
def test_nothing_stays_of_one_that_the_store_refuses(nbytes: int) -> None:
    result, names, models = node(f"""
      await keepModel("http://host/m/a", MIB, 1);
      const before = await store.names();
      store.maxNbytes = store.nbytes + {nbytes};
      const told = await failure(snapshots.store("a", bytes));
      const after = (await store.names()).filter((name) => !before.includes(name));
      done([told, after, await listed()]);
    """)
    assert result == "full"
    assert names == []
    assert models == ["http://host/m/a"]


def test_nothing_else_is_evicted_for_one() -> None:
    result, models = node("""
      await keepModel("http://host/m/a", MIB, 1);
      navigator.storage = { estimate: async () => ({ quota: 5 * MIB, usage: MIB }) };
      done([await failure(snapshots.store("a", bytes)), await listed()]);
    """)
    assert result == "there is no room for it: 9 MB"
    assert models == ["http://host/m/a"]


def test_only_the_newest_two_are_kept() -> None:
    kept = node("""
      for (const key of ["a", "b", "c"]) {
        await snapshots.store(key, bytes);
        const used = Buffer.from(String(key.charCodeAt()));
        await store.put(`u-${await keyOf(`bascule-snapshot:${key}`)}`, used);
      }
      await snapshots.read(await snapshots.find("b"));
      await snapshots.store("d", bytes);
      done([await listed(), await snapshots.any(), (await journal.orphans()).length]);
    """)
    assert kept == [["bascule-snapshot:b", "bascule-snapshot:d"], True, 0]


def test_it_goes_before_any_model() -> None:
    result = node("""
      await keepModel("http://host/m/a", MIB, 1);
      await snapshots.store("a", bytes); // used last
      const lacking = await journal.makeRoom(4 * MIB, store.nbytes + MIB);
      done([lacking, await listed(), await snapshots.any()]);
    """)
    assert result == [0, ["http://host/m/a"], False]


def test_the_key_is_of_pyodide_wheel_and_browser() -> None:
    keys = node("""
      const wheel = (text) => new TextEncoder().encode(text).buffer;
      const keys = [
        await snapshotKey("data:,first#", wheel("w")),
        await snapshotKey("data:,first#", wheel("w")),
        await snapshotKey("data:,second#", wheel("w")),
        await snapshotKey("data:,first#", wheel("v")),
      ];
      Object.defineProperty(globalThis, "navigator", { value: { userAgent: "two" } });
      done([...keys, await snapshotKey("data:,first#", wheel("w"))]);
    """)
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
