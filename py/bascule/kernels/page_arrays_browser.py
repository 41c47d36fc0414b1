"""JavaScript's typed arrays, as Pyodide shows them."""

from __future__ import annotations

from typing import Any

from pyodide.ffi import JsBuffer


def copied(value: Any) -> memoryview | None:
    """Return a copy of the numbers of a typed array; None for anything else."""
    if not isinstance(value, JsBuffer):
        return None
    return value.to_memoryview()


def fill(page: Any, numbers: memoryview) -> None:
    """Copy into a typed array."""
    page.assign(numbers)
