"""Waiting inside plain code in a page, by JSPI."""

from __future__ import annotations

from pyodide.ffi import can_run_sync, run_sync

__all__ = ["can_run_sync", "run_sync"]
