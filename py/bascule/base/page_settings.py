"""Where a page's files are, kept in the environment so that it passes to workers."""

from __future__ import annotations

import os
import sys

from bascule.base.assets import BRIDGE
from bascule.errors import InputError, SetupError

MODELS = "BASCULE_MODELS"
IN_PAGE = sys.platform == "emscripten"


def configure(*, bridge: str | None = None, models: str | None = None) -> None:
    """Set where a page's files are; arguments that are left out stay unchanged.

    `bridge` is the URL of a copy of the package's web/ folder (with bridge/ and vendor/): the
    JavaScript is loaded from there, and script-src needs no `blob:`; "" loads it from the package
    again. `models` is the URL below which known models are found, a folder each; by default the
    origin's /models/. Call it before the first load. SetupError outside a page; InputError for an
    invalid URL.
    """
    if not IN_PAGE:
        raise SetupError(
            "bascule.configure() sets the URLs of a page, and this is none.",
            hint="Outside a page BASCULE_CACHE names the folder that holds models/.",
        )
    for name, url in ((BRIDGE, bridge), (MODELS, models)):
        if url is not None:
            os.environ[name] = _folder_url(url) if url else ""


def _folder_url(url: str) -> str:
    from bascule.base.bridge_browser import absolute_url

    if not isinstance(url, str):
        raise InputError("configure", "a URL", type(url).__name__)
    return absolute_url(url.rstrip("/") + "/")
