"""The resources that one rendering of a chat template has used.

Work is counted before it is done: steps for what is run, `made` for results, `read` for what is
traversed with little or no result (comparisons, searches, sorting). Seconds are the last resort.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import islice
from math import log2
from typing import Any

from bascule.text.template_limits import Limits, TemplateFault

_MAX_BITS = 64
# Measured in Python: creating a value takes as long as some simple nodes.
_MADE_STEPS = 8
# And traversing a list item as long as reading this many characters.
_ITEM_CHARACTERS = 64


class Meter:
    """Counts against `Limits`. Each verb raises TemplateFault once a limit is exceeded."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._steps = 0
        self._n_made = 0
        self._read = 0
        self._end = time.monotonic() + limits.seconds

    def running(self, nodes: int) -> None:
        """Count the nodes of a body that is about to run."""
        self._step(_MADE_STEPS + nodes)

    def looping(self, values: Iterable[Any], nodes: int = 0) -> list[Any]:
        """Return the items of a loop, counted before it starts; `nodes` run for each of them."""
        result = list(islice(values, self._limits.items + 1))
        if len(result) > self._limits.items:
            raise TemplateFault(f"a loop goes through more than {self._limits.items:,} items")
        self._step(len(result) * (1 + nodes))
        return result

    def putting(self, value: Any) -> str:
        """Return the text that is output."""
        return self.making(str(value))

    def making(self, value: Any) -> Any:
        """Count and return a value that was just created."""
        self._step(_MADE_STEPS)
        if isinstance(value, str):
            self._make(len(value), 0)
        elif isinstance(value, int):
            if value.bit_length() > _MAX_BITS:
                raise TemplateFault(f"a number has more than {_MAX_BITS} bits")
        elif isinstance(value, (list, tuple, dict)):
            self._make(*self._weighed(value))
        return value

    def joining(self, values: Iterable[Any], separator: str = "") -> str:
        """Join the texts of values, no longer than a value may be."""
        texts: list[str] = []
        length = 0
        for value in values:
            texts.append(str(value))
            length += len(texts[-1]) + len(separator)
            self.grown(length, 1)
        return self.making(separator.join(texts))

    def range(self, *bounds: int) -> list[int]:
        """Python's `range`, as a list."""
        return self.making(self.looping(range(*bounds)))

    def reading(self, characters: int) -> None:
        """Count characters that are about to be traversed."""
        self._step(1)
        self._read += characters
        if self._read > self._limits.read:
            raise TemplateFault(f"it compares more than {self._limits.read:,} characters")

    def sorting(self, keys: list[Any]) -> None:
        """Count the comparisons, and the copies, of keys that are about to be sorted."""
        characters = sum(map(self.weight, keys))
        self.grown(sum(len(key) for key in keys if isinstance(key, str)), 1)
        self.reading(round(characters * log2(len(keys) + 2)))

    def comparing(self, operator: str, left: Any, right: Any) -> None:
        """Count what a comparison traverses."""
        if operator in ("in", "notin"):
            self.reading(self._search_cost(left, right))
        elif isinstance(left, str) and isinstance(right, str):
            equality = operator in ("eq", "ne") and len(left) != len(right)
            self.reading(1 if equality else min(len(left), len(right)))
        elif isinstance(left, (list, tuple, dict)) and isinstance(right, (list, tuple, dict)):
            self.reading(self.weight(left) + self.weight(right))
        else:
            self.reading(1)

    def _search_cost(self, left: Any, right: Any) -> int:
        if isinstance(right, str):
            return len(right) + self.weight(left)
        if isinstance(right, Mapping):
            return self.weight(left)
        if not isinstance(right, (list, tuple)):
            return 1
        if isinstance(left, (list, tuple, dict)):
            return self.weight(right) + self.weight(left)
        cost = len(right) * _ITEM_CHARACTERS
        if isinstance(left, str):
            same = sum(1 for each in right if isinstance(each, str) and len(each) == len(left))
            cost += same * len(left)
        return cost

    def weight(self, value: Any) -> int:
        """Return a value's characters, with each item as a number of characters."""
        if isinstance(value, str):
            return 1 + len(value)
        if isinstance(value, (list, tuple, dict)):
            characters, items = self._weighed(value)
            return characters + items * _ITEM_CHARACTERS
        return 1

    def before(self, operator: str, left: Any, right: Any) -> None:
        """Reject what would grow before it could be counted."""
        if operator == "**" or (operator == "%" and isinstance(left, str)):
            raise TemplateFault(f"it uses {operator} in a way that chat templates do not need")
        if operator == "*":
            for value, times in ((left, right), (right, left)):
                if isinstance(value, (str, list, tuple)) and isinstance(times, int):
                    self.grown(len(value), times)

    def grown(self, size: int, times: int) -> None:
        """Reject a text or list of `size` repeated `times` if that is too much."""
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
        self._n_made += characters + items
        if self._n_made > self._limits.made:
            raise TemplateFault(f"it makes more than {self._limits.made:,} characters in all")

    def _weighed(self, value: Any) -> tuple[int, int]:
        """Return characters and items when written out: repeated objects count repeatedly."""
        characters = items = 0
        waiting = [(value, 1)]
        while waiting:
            result, depth = waiting.pop()
            if isinstance(result, str):
                characters += len(result)
            elif isinstance(result, (list, tuple, dict)):
                inner = [*result.keys(), *result.values()] if isinstance(result, dict) else result
                items += len(inner) + 1
                if depth > self._limits.depth:
                    raise TemplateFault(f"a list is more than {self._limits.depth} deep")
                if items > self._limits.items:
                    raise TemplateFault(f"a value holds more than {self._limits.items:,} items")
                waiting.extend((each, depth + 1) for each in inner)
        self._step(items // 2)  # this walk takes time itself
        return characters, items
