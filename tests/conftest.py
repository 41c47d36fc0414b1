"""Shared by all native tests: one device a file, and fresh seeds that are printed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from bascule.backend.webgpu.gpu_native import NativeGpu
from tests.shared_devices import SharedDevices

# How fast a machine draws examples says nothing about the code under test.
settings.register_profile("bascule", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("bascule")


@pytest.fixture(scope="module")
def shared_devices() -> Iterator[SharedDevices]:
    """What the tests of a file compile, they compile once: most of their time goes into that."""
    devices = SharedDevices()
    yield devices
    devices.close()


@pytest.fixture
async def gpu(shared_devices: SharedDevices) -> AsyncIterator[NativeGpu]:
    """A real device. There is no run without one: a machine that lacks it fails here."""
    async with shared_devices.gpu() as device:
        yield device


@pytest.fixture(scope="session")
def new_homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Paths that differ. A `tmp_path` is made and removed, which most tests need not wait for."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def weights_home(new_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or fills the user's own weight cache, or lives on what another has learned."""
    home = next(new_homes)
    weights = home.with_suffix(".weights-cache")
    monkeypatch.setenv("BASCULE_REMEMBERED", str(home.with_suffix(".remembered")))
    monkeypatch.setenv("BASCULE_WEIGHTS", str(weights))
    return weights


@pytest.fixture
def rng() -> np.random.Generator:
    """New random numbers each run; pytest shows the seed of a failure."""
    seed = int(os.environ.get("BASCULE_TEST_SEED", "0")) or int.from_bytes(os.urandom(4))
    print(f"BASCULE_TEST_SEED={seed}")
    return np.random.default_rng(seed)
