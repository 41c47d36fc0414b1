"""Pages under a strict Content-Security-Policy: no string is evaluated, and blob: can be spared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from e2e.conftest import GOLDENS, ROOT
from e2e.engines import Engine, Page, wait_for
from tests.goldens import cosines, golden

WITH_BLOB = "script-src 'self' 'wasm-unsafe-eval' blob:; object-src 'none'"
WITHOUT_BLOB = "script-src 'self' 'wasm-unsafe-eval'; object-src 'none'"


class WithHeaders:
    """Adds headers to every answer of an app."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


@contextmanager
def site_with(policy: str) -> Iterator[str]:
    folders = {"lab": ROOT / "e2e" / "pages"}
    app = create_app(models=GOLDENS, pyodide=pyodide_folder(), isolated=False, extra=folders)
    with running(WithHeaders(app, {"Content-Security-Policy": policy})) as url:
        yield url


@pytest.fixture(scope="module")
def sites() -> Iterator[Mapping[str, str]]:
    """A site under each policy."""
    with site_with(WITH_BLOB) as with_blob, site_with(WITHOUT_BLOB) as without_blob:
        yield {WITH_BLOB: with_blob, WITHOUT_BLOB: without_blob}


def ask(page: Page, way: str, tier: str, bridge: str) -> dict[str, Any]:
    """Embed the texts of tiny-bert's golden in one of the ways of e2e/pages/own.js."""
    texts = golden("tiny-bert").texts
    asked = {
        "way": way,
        "tier": tier,
        "bridge": bridge,
        "texts": texts,
        "model": "/models/tiny-bert",
    }
    # What a test calls may evaluate strings, policy or not, until it first waits.
    waiting = (
        "async ({ way, ...asked }) => { await new Promise(setTimeout); return own[way](asked); }"
    )
    return page.run(waiting, asked)


@pytest.mark.parametrize(
    ("way", "policy", "bridge"),
    [
        ("main", WITH_BLOB, ""),
        pytest.param("main", WITHOUT_BLOB, "/", marks=pytest.mark.one_engine),
        ("worker", WITHOUT_BLOB, "/"),
        # test_own_snapshot.py has this one in every engine.
        pytest.param("client", WITH_BLOB, "", marks=pytest.mark.one_engine),
    ],
)
def test_every_tier_runs_under_a_strict_policy(
    webgpu_engine: Engine,
    sites: Mapping[str, str],
    new_page: Callable[[str], Page],
    way: str,
    policy: str,
    bridge: str,
) -> None:
    page = new_page(f"{sites[policy]}/lab/own.html")
    wait_for(page, "globalThis.own")
    assert page.run("() => own.refusal") == "EvalError"  # the policy holds
    for tier in ("webgpu", "wasm"):
        result = ask(page, way, tier, bridge)
        assert result.get("fault") is None
        assert result["tier"] == tier
        matrix = np.reshape(result["data"], (-1, result["columns"]))
        assert (cosines(matrix, golden("tiny-bert").embeddings) >= 0.99999).all()


@pytest.mark.one_engine
def test_a_policy_that_is_too_strict_says_what_to_allow(
    engine: Engine, sites: Mapping[str, str], new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{sites[WITHOUT_BLOB]}/lab/own.html")
    wait_for(page, "globalThis.own")
    for way in ("main", "client"):
        fault = ask(page, way, "wasm", "")["fault"]
        assert fault["category"] == "setup"
        assert "blob:" in fault["hint"]
        assert "bascule.configure(bridge=" in fault["hint"]
