"""The environment's switches, alone and in a selection."""

from __future__ import annotations

import pytest

from bascule import BackendType, IntelligentBackendSelector, WorkloadCharacteristics
from bascule.choosing.switches import read_switches
from bascule.errors import InputError, TierUnavailableError
from tests.tiers.machines import FAST_GPU

LARGE = WorkloadCharacteristics("matmul", 10**6, (1000, 1000))
SMALL = WorkloadCharacteristics("matmul", 100, (10, 10))


@pytest.mark.parametrize("name", BackendType.__members__)
def test_every_name_forces_and_disables(name: str) -> None:
    member = BackendType[name]
    assert read_switches({f"BASCULE_FORCE_{name}": "1"}).forced is member
    disabled = read_switches({f"BASCULE_DISABLE_{name}": "true"})
    assert f"BASCULE_DISABLE_{name}" in disabled.refuses(member)
    assert all(not disabled.refuses(other) for other in BackendType if other is not member)


@pytest.mark.parametrize("off", ["", "0", "false", "No", " off "])
def test_switches_switch_off(off: str) -> None:
    switches = read_switches({"BASCULE_FORCE_JAX": off, "BASCULE_DISABLE_CPU": off})
    assert switches.forced is None
    assert not any(switches.refuses(b) for b in BackendType)


def test_aliases_of_one_tier_agree() -> None:
    result = {"BASCULE_FORCE_TORCH": "1", "BASCULE_FORCE_CPU": "1"}
    assert read_switches(result).forced is BackendType.CPU


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"BASCULE_FORCE_JAX": "1", "BASCULE_FORCE_CPU": "1"}, "at most one"),
        ({"BASCULE_FORCE_JAX": "1", "BASCULE_DISABLE_WEBGPU": "1"}, "BASCULE_DISABLE_WEBGPU"),
        ({"BASCULE_FORCE_WEBGPU": "1", "JAX_PLATFORM_NAME": "cpu"}, "JAX_PLATFORM_NAME"),
        ({"BASCULE_MEMORY_MB": "lots"}, "MiB"),
        ({"BASCULE_MEMORY_MB": "nan"}, "MiB"),
        ({"BASCULE_MEMORY_MB": "-1"}, "MiB"),
    ],
)
def test_contradictions_and_nonsense_are_told(told: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_switches(told)


def test_memory_is_in_mebibytes() -> None:
    assert read_switches({"BASCULE_MEMORY_MB": "1.5"}).memory_nbytes == 3 << 19
    assert read_switches({}).memory_nbytes is None


@pytest.mark.parametrize(
    ("name", "value", "small", "large"),
    [
        ("BASCULE_FORCE_JAX", "1", BackendType.WEBGPU, BackendType.WEBGPU),
        ("BASCULE_FORCE_CPU", "1", BackendType.CPU, BackendType.CPU),
        ("BASCULE_DISABLE_WEBGPU", "1", BackendType.CPU, BackendType.CPU),
        ("BASCULE_DISABLE_TORCH", "1", BackendType.WEBGPU, BackendType.WEBGPU),
        ("BASCULE_PLATFORM_NAME", "cpu", BackendType.CPU, BackendType.CPU),
        ("JAX_PLATFORM_NAME", "cpu", BackendType.CPU, BackendType.CPU),
        ("JAX_PLATFORM_NAME", "gpu", BackendType.CPU, BackendType.WEBGPU),
    ],
)
def test_switches_govern_a_selection(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, small: BackendType, large: BackendType
) -> None:
    monkeypatch.setenv(name, value)
    selector = IntelligentBackendSelector(known=FAST_GPU)
    assert selector.select_backend(SMALL) is small
    assert selector.select_backend(LARGE) is large
    refused = [c.refused for c in selector.decisions[-1].considered if c.refused]
    assert all(name in reason for reason in refused)


def test_a_forced_tier_that_does_not_work_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_FORCE_WEBNN", "1")
    with pytest.raises(TierUnavailableError, match="BASCULE_FORCE_WEBNN"):
        IntelligentBackendSelector(known=FAST_GPU).select_backend(LARGE)


def test_a_disabled_backend_is_no_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_JAX", "1")
    asked: list[BackendType] = []

    def work(backend: BackendType) -> None:
        asked.append(backend)
        raise ValueError("planted")

    selector = IntelligentBackendSelector(known=FAST_GPU)
    with pytest.raises(ValueError, match="planted"):
        selector.execute_with_monitoring("sum", "torch", work, LARGE, [BackendType.JAX])
    assert asked == [BackendType.CPU]
