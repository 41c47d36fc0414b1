"""The files that ship with the Python code: web/ and shaders/.

In a wheel they are inside the package, in a checkout beside py/.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_CHECKOUT = _PACKAGE.parent.parent
FOLDERS = ("web", "shaders")
# The environment variable with the URL of a copy of web/ on the page's site.
BRIDGE = "BASCULE_BRIDGE"


def path(name: str) -> Path:
    """Return the path of an asset, for example `path("shaders/add.wgsl")`.

    `name` comes from Bascule's own code, never from a user; FileNotFoundError if it is missing.
    """
    if name.split("/")[0] not in FOLDERS or ".." in name.split("/"):
        raise ValueError(f"not an asset name: {name!r}")
    for root in (_CHECKOUT, _PACKAGE):
        # A site-packages folder may contain somebody else's web/; only a checkout has py/ beside
        # it.
        if root is _CHECKOUT and not (_CHECKOUT / "py" / "bascule").is_dir():
            continue
        result = root / name
        if result.exists():
            return result
    raise FileNotFoundError(f"bascule lacks its asset {name}: reinstall the package")


@cache
def text(name: str) -> str:
    """Return an asset's text (UTF-8), read once per process."""
    return path(name).read_text(encoding="utf-8")
