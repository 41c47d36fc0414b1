"""What was learned: kept, or given up with one warning; never an error, never a wrong thing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule.base.entries import RememberedWarning
from bascule.base.remembered import FolderRemembered, open_remembered
from tests.goldens import TINY_BERT


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


@contextmanager
def one_warning(word: str) -> Iterator[None]:
    with warnings.catch_warnings(record=True) as result:
        warnings.simplefilter("always")
        yield
    assert [w.category for w in result] == [RememberedWarning]
    assert word in str(result[0].message)


async def test_an_entry_outlives_its_process(tmp_path: Path) -> None:
    key = "choices | GPU / äöü ../.. | " + "x" * 5000
    assert await FolderRemembered(tmp_path / "new" / "er").get(key) is None
    await FolderRemembered(tmp_path / "new" / "er").put(key, {"a": [1, 2.5, "ü", None]})
    again = FolderRemembered(tmp_path / "new" / "er")
    assert await again.get(key) == {"a": [1, 2.5, "ü", None]}
    assert await again.get(key + "y") is None
    await again.put(key, {"b": 1})
    assert await FolderRemembered(tmp_path / "new" / "er").get(key) == {"b": 1}
    await again.clear()
    assert await FolderRemembered(tmp_path / "new" / "er").get(key) is None
    assert list((tmp_path / "new" / "er").iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"3",
        b'{"key": "k"}',
        b'{"key": "k", "value": 3}',
        b'{"key": "other", "value": {"wrong": 1}}',
        b"[" * 100_000,
        b" " * (17 << 20),
        b'{"key": "k", "value": {"a": 1' + b"0" * 400 + b"}}",
        b'{"key": "k", "value": {"a": [' + b"[]," * 300_000 + b"[]]}}",
        rb'{"key": "k", "value": {"a": "\ud800"}}',
    ],
    ids=lambda data: str(data[:24]),
)
async def test_a_damaged_entry_is_dropped_with_one_warning(tmp_path: Path, damage: bytes) -> None:
    store = FolderRemembered(tmp_path)
    await store.put("k", {"a": 1})
    only_file(tmp_path).write_bytes(damage)
    with one_warning("damaged"):
        assert await store.get("k") is None
        assert await store.get("k") is None
    assert list(tmp_path.iterdir()) == []
    await store.put("k", {"a": 2})
    assert await FolderRemembered(tmp_path).get("k") == {"a": 2}


async def test_a_pipe_or_a_folder_in_its_place_holds_nobody_up(tmp_path: Path) -> None:
    store = FolderRemembered(tmp_path)
    await store.put("k", {"a": 1})
    path = only_file(tmp_path)
    path.unlink()
    os.mkfifo(path)
    with pytest.warns(RememberedWarning):
        assert await store.get("k") is None
    path.mkdir()
    other = FolderRemembered(tmp_path)
    with one_warning("read"):
        assert await other.get("k") is None
        await other.put("k", {"a": 3})
    assert await other.get("k") == {"a": 3}


async def test_where_nothing_can_be_written_this_process_still_remembers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = FolderRemembered(tmp_path / "file" / "remembered")
    with one_warning("written"):
        await store.put("k", {"a": 1})
        await store.put("l", {"b": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await store.get("k") == {"a": 1}
        assert await store.get("l") == {"b": 1}
        await store.clear()
        assert await store.get("k") is None


async def test_a_full_disk_leaves_the_old_entry_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FolderRemembered(tmp_path)
    await store.put("k", {"a": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bascule.base.remembered.os.replace", full)
    with pytest.warns(RememberedWarning, match="No space left"):
        await store.put("k", {"a": 2})
    assert await store.get("k") == {"a": 2}
    assert await FolderRemembered(tmp_path).get("k") == {"a": 1}
    assert only_file(tmp_path).suffix == ".json"


async def test_the_oldest_entries_go_first(tmp_path: Path) -> None:
    store = FolderRemembered(tmp_path)
    for number in range(104):
        await store.put(str(number), {"n": number})
        for path in tmp_path.iterdir():  # as if written at that second
            if json.loads(path.read_text())["key"] == str(number):
                os.utime(path, (number, number))
    await store.put("last", {"n": -1})
    assert len(list(tmp_path.iterdir())) == 100
    assert [n for n in range(104) if await store.get(str(n)) is None] == [0, 1, 2, 3, 4]


async def test_the_folder_is_told_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASCULE_REMEMBERED", str(tmp_path / "told"))
    await (await open_remembered()).put("k", {"a": 1})
    assert only_file(tmp_path / "told").suffix == ".json"
    monkeypatch.delenv("BASCULE_REMEMBERED")
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path / "cache"))
    await (await open_remembered()).put("k", {"a": 1})
    assert only_file(tmp_path / "cache" / "remembered").suffix == ".json"


def test_it_needs_no_numpy() -> None:
    code = "import sys, bascule.base.remembered; print('numpy' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"


async def test_a_load_takes_what_is_damaged_for_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASCULE_REMEMBERED", str(tmp_path))
    async with await bascule.load(TINY_BERT) as model:
        expected = await model.embed(["w9 w10"])
    paths = list(tmp_path.glob("*.json"))
    assert paths
    for path in paths:
        damaged = re.sub(r"(?<=[:\[ ])\d+(?=[,\]}. ])", "1" + "0" * 400, path.read_text())
        path.write_text(damaged)
    with warnings.catch_warnings(record=True) as output:
        warnings.simplefilter("always")
        async with await bascule.load(TINY_BERT) as model:
            result = await model.embed(["w9 w10"])
    assert np.allclose(result, expected, atol=1e-4)
    words = [str(w.message) for w in output if w.category is RememberedWarning]
    assert words
    assert all("damaged" in each for each in words)
