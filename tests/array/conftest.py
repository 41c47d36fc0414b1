"""One device a tier for all tests of arrays: a process opens each once."""

from __future__ import annotations

import pytest

import bascule.array as xp
from tests.array.loop_fixtures import any_size as any_size
from tests.array.loop_fixtures import by_loops as by_loops

TIERS = ["webgpu", "wasm", "cpu"]


@pytest.fixture
def on_wasm() -> None:
    """New arrays are made on the wasm tier."""
    xp.set_default_device("wasm")


@pytest.fixture(params=TIERS)
def tier(request: pytest.FixtureRequest) -> str:
    """New arrays are made on this tier."""
    xp.set_default_device(request.param)
    return request.param
