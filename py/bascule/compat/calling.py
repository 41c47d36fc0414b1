"""Users' operations, with or without a parameter for where they run."""

from __future__ import annotations

from collections.abc import Callable
from inspect import Parameter, signature
from typing import Any


def takes_an_argument(func: Callable[..., Any]) -> bool:
    """Whether it has a parameter without a default."""
    return n_arguments(func) > 0


def n_arguments(func: Callable[..., Any]) -> int:
    """Return the number of parameters without a default."""
    try:
        parameters = signature(func).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return 0
    positional = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in positional and p.default is Parameter.empty for p in parameters)
