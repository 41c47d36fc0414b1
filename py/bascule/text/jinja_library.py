"""Jinja where it is not installed: a Pyodide need not have it, so the package carries it.

The set-up packs Jinja and MarkupSafe, which is pure Python there, into web/vendor/jinja2.zip.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from bascule.base import assets

_ARCHIVE = "web/vendor/jinja2.zip"


def provide_jinja() -> None:
    """Let `import jinja2` work. One that is installed comes first."""
    if find_spec("jinja2") is None or find_spec("markupsafe") is None:
        sys.path.append(str(assets.path(_ARCHIVE)))
