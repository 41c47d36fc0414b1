"""pywebnn has wheels for Python 3.12 alone: there a lack of it fails, elsewhere these tests skip.

`make setup` gives them an environment of their own where the machine has a Python 3.12.
"""

from __future__ import annotations

import asyncio

import pytest

from bascule.backend.webnn.backend import WebNnBackend


@pytest.fixture(scope="session")
def backend() -> WebNnBackend:
    """A real context of pywebnn's."""
    from bascule.backend.webnn.ml_native import open_native

    return WebNnBackend(asyncio.run(open_native()))
