"""Errors of arrays, which are also numpy's kinds, so that `except ValueError` works."""

from __future__ import annotations

from bascule.errors import InputError, SetupError


class ShapeError(InputError, ValueError):
    """Shapes, axes or counts of arrays do not match."""

    category = "shape"


class DTypeError(InputError, TypeError, AttributeError):
    """A dtype that arrays do not have, or that a function does not accept."""

    category = "dtype"


class OutOfRangeError(InputError, OverflowError):
    """A number does not fit the dtype that it is converted to."""

    category = "out-of-range"


class ArrayIndexError(InputError, IndexError, ValueError):
    """An index or axis is out of bounds, or of a kind that arrays do not accept."""

    category = "index"


class MustAwaitError(SetupError, ValueError):
    """A value is needed at once, and this page can only give it to code that awaits."""

    category = "must-await"

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} needs the numbers of an array, and plain code can neither wait for them here "
            f"nor read them through a canvas ({why}).",
            hint="Write `await x.numpy()` first: synchronous code can then use its numbers, too.",
        )
