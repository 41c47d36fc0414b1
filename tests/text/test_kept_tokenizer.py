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
from bascule.text.pairs import Templates, kept_templates
from bascule.text.tokenizer_check import check_tokenizer
from tests.goldens import TINY_BERT

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "https://models.example/m"
TEXTS = ["A cat sleeps.", "naïve 東京 🦊", "word " * 100]
MAX_TOKENS = 32
IN_NODE = """
import { readFileSync } from "node:fs";
import { Remembered } from "./web/bridge/remembered.js";
import { createChecked, keepChecked } from "./web/bridge/text.js";
import * as tokenizers from "./web/vendor/tokenizers.js";
const { folder, kept, entries, texts } = JSON.parse(readFileSync(0, "utf8"));
const memory = new Remembered(null, 1000); // keeps what it is given in this process
const made = async () => createChecked(async () => tokenizers, memory, folder);
const module = { openRemembered: async () => memory };
await keepChecked(module, null, folder, JSON.stringify(kept));
const { key, nTokens, nAdded, templates, taken, tokenizer } = await made();
const flat = Array.from(tokenizer.encode(JSON.stringify(texts)));
const answers = [];
for (const entry of entries) {
  await memory.put(`tokenizer ${folder}`, JSON.stringify(entry));
  answers.push(await made().catch((error) => error.name));
}
await memory.forget(`tokenizer ${folder}`);
answers.push(await made());
await keepChecked(module, null, folder, " ".repeat(9 << 20));
answers.push(await made());
console.log(JSON.stringify([{ key, nTokens, nAdded, templates, taken, flat }, answers]));
"""


def in_node(kept: dict[str, Any], entries: list[Any]) -> tuple[dict[str, Any], list[Any]]:
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
    assert checked.templates is not None
    kept = {
        **{"key": "the key", "nTokens": checked.n_tokens, "nAdded": checked.n_added_to_text},
        **{"maxTokens": MAX_TOKENS, "templates": checked.templates.as_json()},
        "json": checked.json.decode(),
    }
    good = {"key": "k", "nTokens": 5, "nAdded": 2, "maxTokens": 9, "templates": None, "json": "{}"}
    hostile = [
        {},
        {**good, "nTokens": -1},
        {**good, "nAdded": "2"},
        {**good, "maxTokens": 1.5},
        {**good, "key": None},
        {key: value for key, value in good.items() if key != "templates"},
        {**good, "json": {"model": 7}},
    ]
    made, answers = in_node(kept, hostile)
    assert {name: made[name] for name in ("key", "nTokens", "nAdded")}.items() <= kept.items()
    assert made["taken"] is False
    assert kept_templates(json.loads(made["templates"]), checked.n_tokens) == checked.templates
    ids = (await open_tokenizer(data, MAX_TOKENS)).encode(TEXTS)
    lengths = [len(row) for row in ids]
    assert made["flat"] == [len(ids), *lengths, *(token for row in ids for token in row)]
    # Neither a hostile entry, nor none, nor one that was too large to be kept.
    assert answers == [None] * (len(hostile) + 2)


def test_a_key_is_that_of_the_bytes_and_the_length() -> None:
    keys = {_checked_key(b"a", 8), _checked_key(b"b", 8), _checked_key(b"a", 9)}
    keys.add(_checked_key(b"a", None))  # not cut
    assert len(keys) == 4
    assert _checked_key(b"a", 8) in keys


SINGLE, PAIR = [[2, 0], ["A", 0], [3, 0]], [["A", 0], [3, 1], ["B", 1]]


def test_kept_templates_are_those_of_the_file_or_refused() -> None:
    sound = Templates((("A", 0),), (("B", 0), (3, 1), ("A", 1)))
    assert kept_templates(json.loads(json.dumps(sound.as_json())), 4) == sound
    assert kept_templates({"single": SINGLE, "pair": None}, 4) == Templates(
        ((2, 0), ("A", 0), (3, 0)), None
    )
    assert kept_templates(None, 4) is None


@pytest.mark.parametrize(
    "stored",
    [
        7,
        [],
        {"single": SINGLE},
        {"single": [], "pair": None},
        {"single": SINGLE, "pair": SINGLE},
        {"single": [["A", 2]], "pair": PAIR},
        {"single": [["A", True]], "pair": PAIR},
        {"single": [["A", 0], [4, 0]], "pair": PAIR},
        {"single": [["A", 0], [-1, 0]], "pair": PAIR},
        {"single": [["A", 0], ["A", 0]], "pair": PAIR},
        {"single": [["A", 0, 0]], "pair": PAIR},
        {"single": [["B", 0]], "pair": PAIR},
    ],
)
def test_damaged_templates_are_refused(stored: Any) -> None:
    with pytest.raises(ValueError, match="other"):
        kept_templates(stored, 4)


@pytest.mark.parametrize("kind", ["memory", "folder"])
async def test_one_key_is_forgotten(kind: str, tmp_path: Path) -> None:
    remembered: Remembered = MemoryRemembered() if kind == "memory" else FolderRemembered(tmp_path)
    for key in ("a", "b"):
        await remembered.put(key, {"x": 1})
    await remembered.forget("a")
    await remembered.forget("never put")
    assert [await remembered.get("a"), await remembered.get("b")] == [None, {"x": 1}]
