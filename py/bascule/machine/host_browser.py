"""The browser, as it names itself."""

from __future__ import annotations

import js


def user_agent() -> str:
    """Changes with every version; it keys what was measured and decides nothing."""
    return str(js.navigator.userAgent)
