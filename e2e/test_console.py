"""A good visit leaves the console empty: what is written there would hide what matters."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bascule.server.app import create_app
from bascule.server.run import pyodide_folder, running
from e2e.conftest import GOLDENS, check_embeddings, console_of, settled
from e2e.engines import Engine


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server as a visitor meets it, for models without a manifest."""
    with running(create_app(models=GOLDENS, pyodide=pyodide_folder())) as result:
        yield result


def test_a_good_visit_writes_nothing(webgpu_engine: Engine, url: str) -> None:
    page = webgpu_engine.new_page()
    console = console_of(page)
    try:
        page.open(f"{url}/?model=/models/tiny-bert&tier=webgpu&tune=off")
        assert settled(page) == "ready"
        check_embeddings(page)
        page.run("() => bascule.offline")  # what is kept for offline use is fetched by then
    finally:
        page.close()
    assert console == []
