"""The files that a load read, by address: Python writes the table, web/ahead.js reads it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from bascule.base.entries import MemoryRemembered
from bascule.base.remembered import FolderRemembered, open_remembered
from bascule.page.worker_browser import PageSession
from bascule.tasks.registry import KNOWN, first_files
from bascule.weights.names import may_be_read
from bascule.weights.recorded import (
    LOADS_KEY,
    MAX_FILES,
    MAX_LOADS,
    FilesRead,
    forget_loads,
    remember_load,
)
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny
from tests.weights.faulty import FaultyServer

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://models.example/m"
SHARDS = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FaultyServer]:
    """Serves tiny-bert whole ("bert") and in shards ("shards"), and a GGUF file ("gguf/m.gguf")."""
    site = tmp_path / "site"
    for name in ("bert", "shards"):
        shutil.copytree(TINY_BERT, site / name)
    whole = site / "shards" / "model.safetensors"
    tensors = load_file(whole)
    whole.unlink()
    names = sorted(tensors)
    parts = [names[: len(names) // 2], names[len(names) // 2 :]]
    for file, part in zip(SHARDS, parts, strict=True):
        save_file({name: tensors[name] for name in part}, site / "shards" / file)
    weight_map = {name: file for file, part in zip(SHARDS, parts, strict=True) for name in part}
    (site / "shards" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map})
    )
    (site / "gguf").mkdir()
    shutil.copy(tiny("tiny-q4_1").path, site / "gguf" / "m.gguf")
    with FaultyServer(site) as result:
        yield result


async def load(model: str) -> dict[str, Any]:
    """Load in a page's session, and give the table as it is afterwards."""
    session = PageSession()
    result = json.loads(await session.load(model, "cpu", lambda *_: None))
    assert "error" not in result, result
    await session.cache("ls", "null")  # once the load is remembered
    await session.close()
    return await (await open_remembered()).get(LOADS_KEY) or {}


async def test_a_load_leaves_exactly_the_files_that_it_asked_for(server: FaultyServer) -> None:
    for name in ("bert", "shards", "gguf/m.gguf"):
        server.reset_counts()
        table = await load(f"{server.url}/{name}")
        row = table["loads"][-1]
        address = f"{server.url}/{name}"
        folder = address.removesuffix("/m.gguf")
        assert row["address"] == address
        asked = {f"{server.url}{request.path}" for request in server.requests}
        asked.discard(f"{folder}/bascule-manifest.json")  # asked for by the fetcher itself
        assert {f"{folder}/{file}" for file in (*row["small"], *row["large"])} == asked
    bert, shards, gguf = table["loads"]
    assert sorted(bert["small"][:2]) == ["config.json", "tokenizer.json"]
    assert bert["large"] == ["model.safetensors"]
    assert shards["large"] == ["model.safetensors", *SHARDS]
    assert "model.safetensors.index.json" in shards["small"]
    assert (gguf["small"], gguf["large"]) == ([], ["m.gguf"])


async def test_a_folder_of_this_machine_is_no_address() -> None:
    assert await load(str(TINY_BERT)) == {}


def files(*names: str) -> FilesRead:
    return FilesRead(("config.json",), names)


async def test_the_least_recently_loaded_leave_the_table() -> None:
    remembered = MemoryRemembered()
    for n in range(MAX_LOADS):
        await remember_load(remembered, f"{ADDRESS}{n}", files("model.safetensors"))
    await remember_load(remembered, f"{ADDRESS}0", files("model.gguf"))  # again, and changed
    await remember_load(remembered, ADDRESS, files())
    loads = (await remembered.get(LOADS_KEY) or {})["loads"]
    assert [row["address"] for row in loads[-2:]] == [f"{ADDRESS}0", ADDRESS]
    assert loads[-2]["large"] == ["model.gguf"]
    assert len(loads) == MAX_LOADS
    assert f"{ADDRESS}1" not in [row["address"] for row in loads]
    many = files(*(f"f{n}" for n in range(MAX_FILES)))
    await remember_load(remembered, "https://models.example/many", many)
    assert (await remembered.get(LOADS_KEY) or {})["loads"] == loads


async def test_the_tier_that_auto_took_stays_until_auto_takes_another() -> None:
    remembered = MemoryRemembered()
    taken: list[str] = []
    for auto in (None, "wasm", None, "webgpu"):
        await remember_load(remembered, ADDRESS, files(), auto)
        taken += [row["auto"] for row in (await remembered.get(LOADS_KEY) or {})["loads"]]
    assert taken == ["", "wasm", "wasm", "webgpu"]


async def test_what_did_not_change_is_not_written_again(tmp_path: Path) -> None:
    remembered = FolderRemembered(tmp_path)
    await remember_load(remembered, ADDRESS, files("model.safetensors"))
    (path,) = tmp_path.iterdir()
    before = path.stat().st_ino  # each write makes another file
    await remember_load(remembered, ADDRESS, files("model.safetensors"))
    assert path.stat().st_ino == before


async def test_a_model_that_is_removed_is_forgotten() -> None:
    remembered = MemoryRemembered()
    for address in (ADDRESS, f"{ADDRESS}2", f"{ADDRESS}/a.gguf", f"{ADDRESS}/b.gguf"):
        own = [address.rpartition("/")[2]] if address.endswith(".gguf") else ["model.safetensors"]
        await remember_load(remembered, address, files(*own))
    tokenizers = [f"tokenizer {ADDRESS}", f"tokenizer {ADDRESS}2"]
    for key in tokenizers:
        await remembered.put(key, {"json": "{}"})
    await forget_loads(remembered, lambda url: url == f"{ADDRESS}/a.gguf")
    left = [row["address"] for row in (await remembered.get(LOADS_KEY) or {})["loads"]]
    assert left == [ADDRESS, f"{ADDRESS}2", f"{ADDRESS}/b.gguf"]
    assert None not in [await remembered.get(key) for key in tokenizers]
    await forget_loads(remembered, lambda _: True)
    assert (await remembered.get(LOADS_KEY) or {})["loads"] == []
    assert [await remembered.get(key) for key in tokenizers] == [None, None]


GOOD = {
    "address": ADDRESS,
    "small": ["config.json"],
    "large": ["1_Dense/model.safetensors"],
    "auto": "wasm",
}
HOSTILE: list[Any] = [
    7,
    None,
    [],
    {"address": ADDRESS},
    {**GOOD, "auto": 7},
    {key: value for key, value in GOOD.items() if key != "auto"},
    {**GOOD, "small": "config.json"},
    {**GOOD, "small": [["config.json"]]},
    {**GOOD, "large": ["../other/model.safetensors"]},
    {**GOOD, "large": ["/etc/passwd"]},
    {**GOOD, "large": ["https://evil.example/x"]},
    {**GOOD, "large": ["a/b/c.bin"]},
    {**GOOD, "large": ["model.gguf?x=1"]},
    {**GOOD, "large": ["%2e%2e/x"]},
    {**GOOD, "large": ["x" * 300]},
    {**GOOD, "large": ["a\n"]},
    {**GOOD, "large": [f"f{n}" for n in range(MAX_FILES + 1)]},
]


@pytest.mark.parametrize("row", HOSTILE)
async def test_a_hostile_row_is_dropped(row: Any) -> None:
    remembered = MemoryRemembered()
    await remembered.put(LOADS_KEY, {"loads": [row, GOOD]})
    await remember_load(remembered, f"{ADDRESS}2", files())
    loads = (await remembered.get(LOADS_KEY) or {})["loads"]
    assert loads[:-1] == [GOOD]


IN_NODE = """
import { filesOfFirstLoad, lastLoad, placeOf } from "./web/ahead.js";
globalThis.location = { origin: "https://site.example" };
const cases = JSON.parse(process.argv[1]);
const found = [];
for (const { entry, ahead, listed, ...wanted } of cases) {
  const place = placeOf(wanted);
  const table = entry ? JSON.stringify(entry) : "";
  const remembered = { get: async (key) => (key === "loads" ? table : "") };
  const last = place && (await lastLoad(remembered, place.address));
  const isFirst = ahead !== undefined;
  const first = isFirst ? await filesOfFirstLoad(ahead, wanted, async () => listed) : null;
  found.push({ place, last, first });
}
console.log(JSON.stringify(found));
"""


def in_page(*cases: dict[str, Any]) -> list[dict[str, Any]]:
    """What web/ahead.js makes of each case."""
    full = [{"model": ADDRESS, "models": "https://site.example/models/", **case} for case in cases]
    command = ["node", "--input-type=module", "-e", IN_NODE, json.dumps(full)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_the_page_reads_the_table_and_trusts_none_of_it() -> None:
    tables: list[Any] = [{"loads": [row]} for row in HOSTILE]
    tables += [{"loads": "x"}, {"loads": None}, {}]
    tables += [{"loads": [{**GOOD, "address": "https://evil.example/m"}]}]
    result = in_page(*({"entry": table} for table in tables), {"entry": {"loads": [7, GOOD]}})
    assert [each["last"] for each in result[:-1]] == [None] * len(tables)
    assert result[-1]["last"] == {key: value for key, value in GOOD.items() if key != "address"}


def test_where_a_page_looks_for_a_model() -> None:
    known, path, slash, gguf, odd, user, query, scheme = (
        each["place"]
        for each in in_page(
            {"model": "all-MiniLM-L6-v2"},
            {"model": "/goldens/m"},
            {"model": f"{ADDRESS}/"},
            {"model": f"{ADDRESS}/a.gguf"},
            {"model": f"{ADDRESS}/a b.gguf"},
            {"model": "https://me:secret@models.example/m"},
            {"model": f"{ADDRESS}?x"},
            {"model": "ftp://models.example/m"},
        )
    )
    assert known["address"] == "https://site.example/models/all-MiniLM-L6-v2"
    assert path["folder"] == "https://site.example/goldens/m"
    assert slash == {"address": ADDRESS, "folder": ADDRESS, "file": ""}
    assert gguf == {"address": f"{ADDRESS}/a.gguf", "folder": ADDRESS, "file": "a.gguf"}
    assert [odd, user, query, scheme] == [None] * 4


def test_a_first_visit_knows_what_the_site_lists() -> None:
    ahead = first_files()
    known = [{"model": name, "ahead": ahead, "listed": []} for name in KNOWN]
    for name, result in zip(KNOWN, in_page(*known), strict=True):
        first = result["first"]
        assert {*first["small"], *first["large"]} == set(KNOWN[name].files)
        assert all(file.endswith((".safetensors", ".gguf", "model.bin")) for file in first["large"])
    bert = ["config.json", "tokenizer.json", "model.safetensors", "modules.json"]
    cases = [[], bert, ["config.json"], ["model.gguf"], ["config.json", "model.gguf"]]
    result = in_page(*({"ahead": ahead, "listed": listed} for listed in cases))
    layout = {"small": bert[:2], "large": bert[2:3]}
    gguf = {"small": [], "large": ["model.gguf"]}
    assert [each["first"] for each in result] == [layout, layout, layout, gguf, gguf]
    hostile = [None, {}, {"folders": 7}, {"folders": [7]}, {"folders": [{"small": ["../x"]}]}]
    assert [each["first"] for each in in_page(*({"ahead": h, "listed": []} for h in hostile))] == [
        None
    ] * len(hostile)


def test_the_layouts_are_files_that_a_load_may_read() -> None:
    for files in (*first_files()["folders"], *first_files()["models"].values()):
        assert all(may_be_read(file) for file in (*files["small"], *files["large"]))
