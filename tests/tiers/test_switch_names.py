"""A misspelt switch is pointed out, in the environment and in a page's address."""

from __future__ import annotations

import json
import re
import subprocess
import warnings
from pathlib import Path

import pytest

import bascule
from bascule import BackendType
from bascule.choosing import switches
from bascule.choosing.switches import KNOWN_NAMES, read_switches, warn_of_unknown_names
from tests.goldens import TINY_BERT

ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"\bBASCULE_[A-Z_]*[A-Z]\b")
SPELT_WRONG = {"BASCULE_X"}  # on purpose, in tests


@pytest.fixture(autouse=True)
def no_warning_given_yet() -> None:
    switches._warn_once.cache_clear()  # pyright: ignore[reportPrivateUsage]


def told(do: object = warn_of_unknown_names) -> list[str]:
    assert callable(do)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        do()
    return [str(each.message) for each in caught]


def test_every_name_in_the_sources_is_known() -> None:
    places = [
        ROOT / name for name in ("py", "web", "tools", "bench", "docs", "README.md", "Makefile")
    ]
    files = [f for p in places for f in ([p] if p.is_file() else p.rglob("*"))]
    read = [f for f in files if f.suffix in (".py", ".js", ".mjs", ".md", ".html", "")]
    results = {
        name for f in read if f.is_file() for name in NAME.findall(f.read_text("utf-8", "replace"))
    }
    assert {"BASCULE_CACHE", "BASCULE_MEMORY_MB", "BASCULE_PROVE"} <= results
    assert results - KNOWN_NAMES - SPELT_WRONG == set()


def test_a_known_name_gets_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KNOWN_NAMES:
        monkeypatch.setenv(name, "0")
    assert told() == []


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("BASCULE_DISABLE_WEBGPUS", "Did you mean BASCULE_DISABLE_WEBGPU?"),
        ("BASCULE_CACH", "Did you mean BASCULE_CACHE?"),
        ("BASCULE_QZX", ""),
    ],
)
def test_an_unknown_name_gets_one(monkeypatch: pytest.MonkeyPatch, name: str, near: str) -> None:
    monkeypatch.setenv(name, "1")
    (only,) = told()
    assert name in only
    assert only.endswith(near or "has none of that name.")
    assert told(read_switches) == []  # it was said


async def test_a_load_on_a_named_tier_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_CACHE_MOST_BG", "1")
    with pytest.warns(UserWarning, match="Did you mean BASCULE_CACHE_MOST_GB"):
        (await bascule.load(TINY_BERT, tier="cpu")).close()


def of_address(query: str) -> tuple[dict[str, str], list[str], list[str]]:
    """What web/switches.js takes from an address, its warnings, and all that it knows."""
    script = """
      import { SWITCHES, switchesOf, unknownSwitches } from "./web/switches.js";
      const query = new URLSearchParams(process.argv[1]);
      console.log(JSON.stringify([switchesOf(query), unknownSwitches(query), SWITCHES]));
    """
    command = ["node", "--input-type=module", "-e", script, query]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return json.loads(done.stdout)


def test_an_address_sets_known_switches_alone() -> None:
    query = "model=x&BASCULE_DISABLE_CPU=1&BASCULE_MEMORY_MB=9"
    query += "&BASCULE_BRIDGE=//evil&BASCULE_DISABLE_WEBGUP=1"
    taken, warned, known = of_address(query)
    assert taken == {"BASCULE_DISABLE_CPU": "1", "BASCULE_MEMORY_MB": "9"}
    bridge, misspelt = warned
    problem = "has no effect: it is not a switch of a page."
    assert bridge == f"BASCULE_BRIDGE in this page's address {problem}"
    assert misspelt.endswith("Did you mean BASCULE_DISABLE_WEBGPU?")
    pairs = {f"BASCULE_{v}_{n}" for v in ("FORCE", "DISABLE") for n in BackendType.__members__}
    assert set(known) == pairs | {"BASCULE_MEMORY_MB", "BASCULE_PLATFORM_NAME"}
    assert set(known) <= KNOWN_NAMES
    long = of_address("bascule_" + "x" * 100_000 + "=1")[1]
    assert len(long) == 1
    assert len(long[0]) < 200
