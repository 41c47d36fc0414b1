"""Rows of Chrome, Edge, Firefox and Safari: the same facts, each with its source."""

from __future__ import annotations

from typing import Any

import pytest

from bascule import browser_features
from bascule.machine.browsers import BROWSER_FACTS
from bascule.machine.safari import safari_features


def test_every_row_has_every_fact_with_its_source() -> None:
    names = {fact.name for fact in BROWSER_FACTS["safari"]}
    assert set(BROWSER_FACTS) == {"chrome", "edge", "firefox", "safari"}
    for browser, facts in BROWSER_FACTS.items():
        assert {fact.name for fact in facts} == names, browser
        assert all(fact.source.startswith("https://") for fact in facts)


@pytest.mark.parametrize(
    ("named", "fact", "since"),
    [
        ("chrome", "webgpu", 113),
        ("Microsoft Edge", "webgpu", 113),
        ("firefox", "webgpu", 141),
        ("chrome", "shader-f16", 120),
        ("chrome", "subgroups", 134),
        ("Chrome", "jspi", 137),
        ("firefox", "jspi", 153),
        ("edge", "threads", 79),
        ("Firefox", "wasm_relaxed_simd", 146),
        ("chrome", "compute_pressure", 125),
    ],
)
def test_a_version_ships_what_its_row_says(named: str, fact: str, since: int) -> None:
    def ships(version: Any) -> bool:
        return browser_features({"name": named, "version": version})[fact]

    assert not ships(f"{since - 1}.9")
    assert ships(since)
    assert ships(f"{since}.0.1.2")
    assert ships("999")


def test_what_no_version_ships() -> None:
    latest = browser_features({"name": "firefox", "version": "999"})
    assert not latest["shader-f16"]
    assert not latest["device_memory"]
    assert not browser_features({"name": "chrome", "version": "999"})["webnn"]


def test_safari_is_answered_by_its_own_table() -> None:
    info = {"name": "Mobile Safari", "version": "26.1"}
    assert browser_features(info) == safari_features(info)


@pytest.mark.parametrize("info", [None, {}, {"name": "lynx", "version": "2"}])
def test_other_browsers_have_no_row(info: dict[str, Any] | None) -> None:
    assert browser_features(info) == {}


def test_an_unknown_version_ships_nothing() -> None:
    assert not any(browser_features({"name": "chrome", "version": "new"}).values())
