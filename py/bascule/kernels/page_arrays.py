"""JavaScript's typed arrays as arguments; outside a page there are none."""

from __future__ import annotations

import sys
from typing import Any

from bascule.base.arrays import Array


def page_array(value: Any) -> memoryview | None:
    """Return a copy of the numbers of a page's typed array; None for anything else."""
    if sys.platform != "emscripten":
        return None
    from bascule.kernels.page_arrays_browser import copied

    return copied(value)


def fill_page_array(page: Any, array: Array) -> None:
    """Copy an array's bytes into a typed array of the page."""
    from bascule.kernels.page_arrays_browser import fill

    fill(page, memoryview(array))
