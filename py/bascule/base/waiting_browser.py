"""Waiting in synchronous code in a page, through JSPI."""

from __future__ import annotations

import asyncio

from pyodide import ffi
from pyodide.ffi import run_sync

__all__ = ["can_run_sync", "run_sync"]

_proven: list[bool] = []


def can_run_sync() -> bool:
    """Whether `run_sync` works in this page.

    Pyodide started from a memory snapshot may report that it does and then raise, so the first call
    tries it.
    """
    if not ffi.can_run_sync():
        return False
    if not _proven:
        work = asyncio.sleep(0)
        try:
            run_sync(work)
        except RuntimeError:
            work.close()
            _proven.append(False)
        else:
            _proven.append(True)
    return _proven[0]
