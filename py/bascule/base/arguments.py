"""Check arguments: equivalent types are accepted, anything else is an InputError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Set
from operator import index
from typing import Any, TypeGuard

from bascule.errors import InputError


def described(value: object) -> str:
    """Describe a value for an error message: its beginning and its type."""
    try:
        shown = repr(value)
    except Exception:  # somebody's own __repr__
        shown = "a value"
    return f"{shown if len(shown) <= 60 else shown[:57] + '...'} ({type(value).__name__})"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return a sentence with the closest known name; empty if none is close."""
    names = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6)
    return f"Did you mean {names[near[0]]!r}?" if near else ""


def flag(where: str, value: object) -> bool:
    """Return a bool; InputError naming `where` for anything else."""
    if not isinstance(value, bool):
        raise InputError(where, "True or False", described(value))
    return value


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is an int or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def whole_number(where: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return an int from any integer type, including numpy's; InputError naming `where`.

    Floats and bools are rejected, whatever their value.
    """
    result = _index_of(value)
    if result is not None and result >= minimum and (maximum is None or result <= maximum):
        return result
    bounds = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum:,}"
    raise InputError(where, f"a whole number {bounds}", described(value))


def token_ids(where: str, value: object, vocabulary: int) -> list[int]:
    """Return token ids from any iterable of integers, including numpy arrays."""
    expected = f"token ids from 0 to {vocabulary - 1:,}"
    if isinstance(value, str | bytes | bytearray | memoryview | Mapping | Set):
        raise InputError(where, f"a list of {expected}", described(value))
    try:
        listed = list(_iterable(value))
    except TypeError:
        raise InputError(where, f"a list of {expected}", described(value)) from None
    ids: list[int] = []
    for at, token in enumerate(listed):
        result = _index_of(token)
        if result is None or not 0 <= result < vocabulary:
            raise InputError(f"{where}[{at}]", expected, described(token))
        ids.append(result)
    return ids


def strings(where: str, value: object) -> list[str]:
    """Return a list from one string or an ordered iterable of strings: a numpy array, a pandas
    Series, a generator. InputError names the first item that is not a string.
    """
    result = listed(where, value, "a string, or a list of strings")
    for at, text in enumerate(result):
        if not isinstance(text, str):
            raise InputError(f"{where}[{at}]", "a string", described(text))
    return [str(text) for text in result]


def listed(where: str, value: object, expected: str) -> list[Any]:
    """Return the items of an ordered iterable, or of one string; InputError for anything else."""
    if isinstance(value, str):
        return [value]
    # Iterating a table yields its column names.
    unfit = isinstance(value, bytes | bytearray | memoryview | Mapping | Set)
    if unfit or hasattr(value, "columns"):
        raise InputError(where, expected, described(value))
    try:
        return list(_iterable(value))
    except TypeError:
        raise InputError(where, expected, described(value)) from None


def one_of(where: str, value: object, known: Iterable[str]) -> str:
    """Return one of the known names; InputError with all of them and the closest."""
    names = tuple(known)
    if isinstance(value, str) and value in names:
        return value
    expected = "one of " + ", ".join(map(repr, names))
    raise InputError(where, expected, described(value), hint=did_you_mean(value, names))


def _index_of(value: object) -> int | None:
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_"):
        return None
    try:
        return index(value)  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return None


def _iterable(value: Any) -> Iterable[Any]:
    # A zero-dimensional array is one value.
    return [value.item()] if getattr(value, "ndim", None) == 0 else value
