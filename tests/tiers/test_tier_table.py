"""The table of tiers is what everything else about tiers is taken from."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import pytest

from bascule import BackendType
from bascule.backend.tiers import NAMES, TABLE, TIERS, tier_info
from bascule.base.waiting import sync
from bascule.choosing.openers import open_named
from bascule.choosing.speeds import KINDS, typical_speeds
from bascule.errors import TierUnavailableError

WEB = Path(__file__).parent.parent.parent / "web"
OPTION = re.compile(r'<option value="([a-z-]+)">([^<]*) \(\1\)</option>')


def test_each_tier_has_a_row_and_a_backend_type() -> None:
    assert tuple(member.value for member in BackendType) == TIERS
    assert [tier_info(tier).name for tier in NAMES] == [row.name for row in TABLE]
    assert [row.name for row in TABLE if row.chosen] == list(TIERS)


@pytest.mark.parametrize("tier", NAMES)
def test_a_row_opens_its_own_tier_or_says_why_not(tier: str) -> None:
    if tier in ("webnn", "wasm"):  # they need packages that may not be there
        with suppress(TierUnavailableError):
            sync(open_named(tier, remember=False)).close()
        return
    backend = sync(open_named(tier, remember=False))
    assert backend.tier == tier
    assert (backend.adapter is not None) == tier_info(backend.tier).is_gpu
    backend.close()


def test_a_better_tier_comes_before() -> None:
    for row in TABLE:
        if row.better is not None:
            assert NAMES.index(row.better.tier) < NAMES.index(row.name)


def test_typical_speeds_leave_out_what_a_tier_does_not_do() -> None:
    for row in TABLE:
        result = typical_speeds(row.name, software=False, why="")
        assert set(result.samples) == {k for k in KINDS if k != "blocks" or row.typical.blocks_s}


@pytest.mark.parametrize("name", ["index.html", "chat.html"])
def test_the_pages_offer_the_rows_of_the_table(name: str) -> None:
    offered = dict(OPTION.findall((WEB / name).read_text("utf-8").replace("’", "'")))
    offered.pop("auto")
    # A chat's model has states, and a tier that refuses programs refuses those.
    rows = [row for row in TABLE if row.chosen]
    shown = [row for row in rows if name == "index.html" or not row.refuses]
    assert offered == {row.name: row.label for row in shown}
