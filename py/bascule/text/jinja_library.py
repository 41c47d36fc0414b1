"""Jinja for a Pyodide that has not installed it: the package contains it.

The set-up packs Jinja and MarkupSafe, in pure Python, into web/vendor/jinja2.zip.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from bascule.base import assets

_ARCHIVE = "web/vendor/jinja2.zip"


def provide_jinja() -> None:
    """Make `import jinja2` work. An installed one has precedence."""
    if find_spec("jinja2") is None or find_spec("markupsafe") is None:
        sys.path.append(str(assets.path(_ARCHIVE)))
