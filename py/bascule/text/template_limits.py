"""The resources of a chat template, and what it may use.

A template comes from a model file, so it may be an attack: it gets limited steps, text and time,
and only the filters, tests and methods that chat templates use.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

MAX_TEMPLATE_CHARACTERS = 1 << 16
# Of indents and separators.
MAX_WIDTH = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one rendering.

    `steps` are nodes of the template that are run. `made` characters and list items are counted
    each time they are created, `read` ones each time they are compared or searched; `characters`
    and `items` limit one value with its contents, `depth` the nesting of its lists.
    """

    steps: int = 8 << 20
    made: int = 64 << 20
    read: int = 256 << 20
    characters: int = 8 << 20
    items: int = 1 << 18
    depth: int = 32
    seconds: float = 5.0


LIMITS = Limits()

FILTERS = frozenset(
    (
        *("abs", "capitalize", "default", "dictsort", "first", "float", "indent", "int", "items"),
        *("join", "last", "length", "list", "lower", "map", "rejectattr", "replace", "reverse"),
        *("safe", "selectattr", "sort", "string", "title", "tojson", "trim", "unique", "upper"),
    )
)
TESTS = frozenset(
    (
        *("boolean", "callable", "defined", "eq", "equalto", "even", "false", "integer"),
        *("iterable", "lower", "mapping", "none", "number", "odd", "sequence", "string", "true"),
        *("undefined", "upper"),
    )
)
METHODS = MappingProxyType(
    {
        str: frozenset(
            (
                *("capitalize", "endswith", "lower", "lstrip", "replace", "rstrip", "split"),
                *("startswith", "strip", "title", "upper"),
            )
        ),
        dict: frozenset(("get", "items", "keys", "values")),
    }
)
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


class TemplateFault(Exception):
    """The template does something forbidden, or fails."""


class TemplateRefusal(Exception):
    """The template itself rejects the conversation (`raise_exception`)."""
