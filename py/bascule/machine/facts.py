"""Read a probe's facts: a value of the wrong type counts as unknown.

Extensions and tests may wrap a page's APIs, and drivers report odd values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

_LONGEST = 500
_LARGEST_BUDGET_NBYTES = 4 << 30
# The only guess of memory, for a page where it is unknown (Firefox, Safari): an iPhone kills a tab
# at about 1.5 GB, and WebKit limits buffers to 1 GiB for that reason
# (https://github.com/WebKit/WebKit/pull/49472).
DEFAULT_MEMORY_BUDGET_NBYTES = 1 << 30


def _text(value: object) -> str | None:
    return value[:_LONGEST] if isinstance(value, str) and value else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _count(value: object) -> int | None:
    """Return an integer of at least 0; JavaScript sends large ones as floats."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value < 2**63 else None  # NaN compares false


def _names(value: object) -> frozenset[str] | None:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        return None
    return frozenset(each for each in cast("Iterable[object]", value) if isinstance(each, str))


def _of(read: Callable[[object], Any]) -> Callable[[object], dict[str, Any] | None]:
    """Return a reader of mappings whose values `read` accepts; the others are left out."""

    def read_all(value: object) -> dict[str, Any] | None:
        if not isinstance(value, Mapping):
            return None
        fields = cast("Mapping[object, object]", value)
        pairs = ((str(name), read(each)) for name, each in fields.items())
        return {name: each for name, each in pairs if each is not None}

    return read_all


# By the annotation of the field.
READERS: Mapping[str, Callable[[object], Any]] = {
    "str": _text,
    "str | None": _text,
    "bool | None": _flag,
    "int": _count,
    "int | None": _count,
    "frozenset[str] | None": _names,
    "Mapping[str, int] | None": _of(_count),
    "Mapping[str, str]": _of(_text),
}


def memory_budget(
    host: str | None, memory_nbytes: int | None, limits: Mapping[str, int] | None
) -> int:
    """Return the bytes that models and buffers may use together.

    Natively three quarters of the memory, in a page half of `navigator.deviceMemory`: the rest is
    for the system and the browser. If the memory is unknown, DEFAULT_MEMORY_BUDGET_NBYTES, or the
    adapter's largest buffer if that is larger (no device with little memory offers such a buffer).
    """
    if memory_nbytes:
        return memory_nbytes * 3 // 4 if host == "native" else memory_nbytes // 2
    largest = (limits or {}).get("maxBufferSize", 0)
    return max(DEFAULT_MEMORY_BUDGET_NBYTES, min(largest, _LARGEST_BUDGET_NBYTES))
