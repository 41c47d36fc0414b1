"""How the next token is chosen; ops choose it, on the GPU if there is one."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from math import nan
from numbers import Real
from typing import Any

from bascule.base.arguments import described, whole_number
from bascule.errors import InputError
from bascule.tasks.language_graph import Head

_LARGEST_SEED = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one generation, applied in this order.

    `repetition_penalty` divides the positive logits of the last `penalty_window` tokens (1: off);
    `temperature` divides logits (0: greedy); `top_k` keeps the k most likely (0: all), `top_p` the
    most likely whose probabilities sum to p (1: all), `min_p` those at least that fraction of the
    most likely one's (0: all). A `seed` makes sampling repeatable on a device; by default each
    generation has its own.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    penalty_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check("temperature", 100.0)
        self._check_count("top_k", 1 << 30)
        self._check("top_p", 1.0, above=True)
        self._check("min_p", 1.0)
        self._check("repetition_penalty", 100.0, above=True)
        self._check_count("penalty_window", 1 << 20)
        if self.seed is not None:
            self._check_count("seed", _LARGEST_SEED)

    def _check_count(self, name: str, maximum: int) -> None:
        """Convert it to an int; InputError unless it is from 0 to `maximum`."""
        object.__setattr__(self, name, whole_number(name, getattr(self, name), 0, maximum))

    def _check(self, name: str, maximum: float, *, above: bool = False) -> None:
        """Convert it to a float; InputError unless it is from 0 to `maximum`, or `above` 0."""
        value: Any = getattr(self, name)
        try:
            result = float(value) if isinstance(value, Real) else nan
        except OverflowError:
            result = nan
        if isinstance(value, bool) or not 0 <= result <= maximum or (above and not result):
            expected = f"a number {'above' if above else 'from'} 0 to {maximum:g}"
            raise InputError(name, expected, described(value))
        object.__setattr__(self, name, result)

    @property
    def head(self) -> Head:
        """The decode head that these need."""
        if self.repetition_penalty != 1 and self.penalty_window:
            return "penalised"
        return "sample" if self.temperature else "argmax"

    def pack(self) -> bytes:
        """Return the state `settings` (8,) u32 that the ops read."""
        seed = random.getrandbits(32) if self.seed is None else self.seed
        return struct.pack(
            "<fIfffIII",
            self.temperature,
            self.top_k,
            self.top_p,
            self.min_p,
            self.repetition_penalty,
            self.penalty_window,
            seed,
            0,
        )


GREEDY = Sampling(temperature=0.0)
