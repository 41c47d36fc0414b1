"""How the next token is to be chosen; ops do the choosing, on the GPU where there is one."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from math import isfinite

from bascule.errors import InputError
from bascule.model.llama import Head

_LARGEST_SEED = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings of one generation; applied in this order.

    `repetition_penalty` divides the positive logits of the last `penalty_window` tokens (1: off);
    `temperature` divides logits (0: the likeliest token, greedily); `top_k` keeps the k likeliest
    (0: all), `top_p` the likeliest whose probabilities sum to p (1: all), `min_p` those at least
    that fraction of the likeliest one's (0: all). A `seed` makes the draw repeatable on a device;
    without one each generation has its own.
    """

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    min_p: float = 0.05
    repetition_penalty: float = 1.0
    penalty_window: int = 64
    seed: int | None = None

    def __post_init__(self) -> None:
        self._check("temperature", self.temperature, 0.0, 100.0)
        self._check("top_k", self.top_k, 0, 1 << 30)
        self._check("top_p", self.top_p, 0.0, 1.0, above=True)
        self._check("min_p", self.min_p, 0.0, 1.0)
        self._check("repetition_penalty", self.repetition_penalty, 0.0, 100.0, above=True)
        self._check("penalty_window", self.penalty_window, 0, 1 << 20)
        self._check("seed", 0 if self.seed is None else self.seed, 0, _LARGEST_SEED)

    @staticmethod
    def _check(name: str, value: float, least: float, most: float, *, above: bool = False) -> None:
        whole = isinstance(least, int)
        kind = int if whole else int | float
        ok = isinstance(value, kind) and not isinstance(value, bool) and isfinite(value)
        if not ok or not least <= value <= most or (above and value == least):
            told = f"a {'whole ' if whole else ''}number {'above' if above else 'from'} {least}"
            raise InputError(name, f"{told} to {most}", repr(value))

    @property
    def head(self) -> Head:
        """Which end of a decode program serves these."""
        if self.repetition_penalty != 1 and self.penalty_window:
            return "penalised"
        return "sample" if self.temperature else "argmax"

    def pack(self) -> bytes:
        """The state `settings` (8,) u32 that the ops read."""
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
