"""Open the WebNN tier, and say what it cannot run."""

from __future__ import annotations

from typing import Any

from bascule.backend.tiers import Tier
from bascule.backend.webnn.translate import refusal as refusal
from bascule.base.page_settings import IN_PAGE
from bascule.errors import TierUnavailableError


async def open_backend(tier: Tier, *, remember: bool, early: bool) -> Any:
    """See `TierInfo.open`."""
    del tier, remember, early
    from bascule.backend.webnn.backend import WebNnBackend

    if IN_PAGE:
        from bascule.backend.webnn.ml_browser import open_browser as open_ml
    else:
        from bascule.backend.webnn.ml_native import open_native as open_ml
    return WebNnBackend(await open_ml())


async def facts() -> dict[str, Any]:
    """See `TierInfo.facts`."""
    try:
        from bascule.backend.webnn.ml_native import open_native
    except ImportError as error:  # without numpy
        raise TierUnavailableError("webnn", str(error)) from None
    (await open_native()).close()
    return {"webnn": ["cpu"]}  # the kind of device that the driver asks for
