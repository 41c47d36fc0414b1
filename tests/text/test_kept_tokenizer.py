"""A checked tokenizer.json that a page keeps is made again without a check; no entry is trusted."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bascule.base.entries import MemoryRemembered, Remembered
from bascule.base.remembered import FolderRemembered
from bascule.text import _checked_key, open_tokenizer  # pyright: ignore[reportPrivateUsage]
from bascule.text.tokenizer_check import check_tokenizer
from tests.goldens import TINY_BERT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "https://models.example/m"
TEXTS = ["A cat sleeps.", "naïve 東京 🦊", "word " * 100]
MOST_TOKENS = 32
IN_NODE = """
import { readFileSync } from "node:fs";
import { Remembered } from "./web/bridge/remembered.js";
import { createChecked, keepChecked } from "./web/bridge/text.js";
import * as tokenizers from "./web/vendor/tokenizers.js";
const { folder, kept, entries, texts } = JSON.parse(readFileSync(0, "utf8"));
const memory = new Remembered(null, 1000); // keeps what it is given in this process
const made = async () => createChecked(async () => tokenizers, memory, folder);
const module = { openRemembered: async () => memory };
await keepChecked(module, null, folder, ...kept);
const { key, nTokens, nAdded, taken, tokenizer } = await made();
const flat = Array.from(tokenizer.encode(JSON.stringify(texts)));
const answers = [];
for (const entry of entries) {
  await memory.put(`tokenizer ${folder}`, JSON.stringify(entry));
  answers.push(await made().catch((error) => error.name));
}
await memory.forget(`tokenizer ${folder}`);
answers.push(await made());
await keepChecked(module, null, folder, "key", 1, 1, 1, " ".repeat(9 << 20));
answers.push(await made());
console.log(JSON.stringify([{ key, nTokens, nAdded, taken, flat }, answers]));
"""


def in_node(kept: list[Any], entries: list[Any]) -> tuple[dict[str, Any], list[Any]]:
    """What a page makes of a tokenizer that was kept, and of entries that it did not write."""
    asked = {"folder": FOLDER, "kept": kept, "entries": entries, "texts": TEXTS}
    command = ["node", "--input-type=module", "-e", IN_NODE]
    done = subprocess.run(
        command, input=json.dumps(asked), capture_output=True, text=True, check=True, cwd=ROOT
    )
    made, answers = json.loads(done.stdout)
    return made, answers


async def test_what_is_kept_encodes_as_what_was_checked() -> None:
    data = (TINY_BERT / "tokenizer.json").read_bytes()
    checked = check_tokenizer(data, "tokenizer.json")
    numbers = [checked.n_tokens, checked.n_added_to_text, MOST_TOKENS]
    good = {"key": "k", "nTokens": 5, "nAdded": 2, "mostTokens": 9, "json": "{}"}
    hostile = [
        {},
        {**good, "nTokens": -1},
        {**good, "nAdded": "2"},
        {**good, "mostTokens": 1.5},
        {**good, "key": None},
        {**good, "json": {"model": 7}},
    ]
    made, answers = in_node(["the key", *numbers, checked.json.decode()], hostile)
    assert made["key"] == "the key"
    assert [made["nTokens"], made["nAdded"]] == numbers[:2]
    assert made["taken"] is False
    ids = (await open_tokenizer(data, MOST_TOKENS)).encode(TEXTS)
    lengths = [len(row) for row in ids]
    assert made["flat"] == [len(ids), *lengths, *(token for row in ids for token in row)]
    # Neither a hostile entry, nor none, nor one that was too large to be kept.
    assert answers == [None] * (len(hostile) + 2)


def test_a_key_is_that_of_the_bytes_and_the_length() -> None:
    keys = {_checked_key(b"a", 8), _checked_key(b"b", 8), _checked_key(b"a", 9)}
    assert len(keys) == 3
    assert _checked_key(b"a", 8) in keys


@pytest.mark.parametrize("kind", ["memory", "folder"])
async def test_one_key_is_forgotten(kind: str, tmp_path: Path) -> None:
    remembered: Remembered = MemoryRemembered() if kind == "memory" else FolderRemembered(tmp_path)
    for key in ("a", "b"):
        await remembered.put(key, {"x": 1})
    await remembered.forget("a")
    await remembered.forget("never put")
    assert [await remembered.get("a"), await remembered.get("b")] == [None, {"x": 1}]
