"""What one rendering of a chat template has used up; all that loops or grows passes here."""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from bascule.text.template_limits import Limits, TemplateFault

_MOST_BITS = 64


class Meter:
    """Counts against `Limits`. Each verb raises TemplateFault once something is used up."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._steps = 0
        self._made = 0
        self._end = time.monotonic() + limits.seconds

    def looping(self, values: Iterable[Any]) -> list[Any]:
        """What a loop goes through, paid for before it starts."""
        found = list(islice(values, self._limits.items + 1))
        if len(found) > self._limits.items:
            raise TemplateFault(f"a loop goes through more than {self._limits.items:,} items")
        self._step(len(found))
        return found

    def putting(self, value: Any) -> str:
        """What is put out, as text."""
        return self.making(str(value))

    def making(self, value: Any) -> Any:
        """A value that was just made."""
        self._step(1)
        if isinstance(value, str):
            self._make(len(value), 0)
        elif isinstance(value, int):
            if value.bit_length() > _MOST_BITS:
                raise TemplateFault(f"a number has more than {_MOST_BITS} bits")
        elif isinstance(value, (list, tuple, dict)):
            self._weigh(value)
        return value

    def range(self, *bounds: int) -> list[int]:
        """Python's `range`, as a list."""
        return self.making(self.looping(range(*bounds)))

    def before(self, operator: str, left: Any, right: Any) -> None:
        """Refuse what would grow before anyone could count it."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise TemplateFault(f"it uses {operator} in a way that chat templates do not need")
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, (str, list, tuple)) and isinstance(times, int):
                    self.grown(len(value), times)

    def grown(self, size: int, times: int) -> None:
        """Refuse a text or list of `size` made `times` over if that is too much."""
        if size * times > self._limits.characters:
            raise TemplateFault(f"a value grows past {self._limits.characters:,} characters")

    def _step(self, count: int) -> None:
        self._steps += count + 1
        if self._steps > self._limits.steps:
            raise TemplateFault(f"it takes more than {self._limits.steps:,} steps")
        if time.monotonic() > self._end:
            raise TemplateFault(f"it takes longer than {self._limits.seconds:g} s")

    def _make(self, characters: int, items: int) -> None:
        if characters > self._limits.characters:
            raise TemplateFault(f"a value holds more than {self._limits.characters:,} characters")
        if items > self._limits.items:
            raise TemplateFault(f"a value holds more than {self._limits.items:,} items")
        self._made += characters + items
        if self._made > self._limits.made:
            raise TemplateFault(f"it makes more than {self._limits.made:,} characters in all")

    def _weigh(self, value: Any) -> None:
        """Count what would be written out, so what stands in two places counts twice."""
        characters = items = 0
        waiting = [(value, 1)]
        while waiting:
            found, depth = waiting.pop()
            if isinstance(found, str):
                characters += len(found)
            elif isinstance(found, (list, tuple, dict)):
                inner = [*found.keys(), *found.values()] if isinstance(found, dict) else found
                items += len(inner) + 1
                if depth > self._limits.depth:
                    raise TemplateFault(f"a list is more than {self._limits.depth} deep")
                if items <= self._limits.items:
                    waiting.extend((each, depth + 1) for each in inner)
            if items > self._limits.items or characters > self._limits.characters:
                break
        self._make(characters, items)
