"""Proof that a loaded model answers correctly: a stored sample, and the outcome.

A sample is a few token ids and a few numbers of the answer, from an independent implementation
(transformers in float64 on the same weights; tests/goldens/make_samples.py wrote samples.json).
Text models that Bascule knows by name have one: their files are known by hashes, so there is one
right answer. Any other model, such as a user's own, has none: numpy could compute it, but only with
a second copy of the weights, for which there may be no memory. For those, and before the sample,
each kernel is proven on small numbers of its own (`backend/webgpu/trials.py`), which needs no
weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from math import hypot, inf, isfinite
from pathlib import Path
from typing import Any, Protocol

from bascule.base.dtypes import DType
from bascule.errors import BasculeError, TierUnavailableError, WrongResultError

# What fewer bits may add to a deviation; measured (see tests/tasks/test_samples.py) and doubled.
FEWER_BITS: Mapping[DType, float] = {"f16": 0.002, "q8_0": 0.1, "q4_1": 1.0, "q4_0": 1.0}


@dataclass(frozen=True, slots=True)
class Sample:
    """Token `ids`, and `numbers` of the answer: the first of an embedding; of a language model the
    logits of the tokens `at` after the last id, the first of which must be the next token.
    """

    ids: tuple[int, ...]
    numbers: tuple[float, ...]
    tolerance: float
    at: tuple[int, ...] = ()

    def allowed(self, weights: DType | None) -> float:
        """Return the allowed deviation for float weights stored in that format."""
        return self.tolerance + (FEWER_BITS.get(weights, 0.0) if weights else 0.0)

    def deviation(self, numbers: Sequence[float]) -> float:
        """Return the largest deviation, relative to the RMS of the numbers; inf for NaN."""
        if len(numbers) != len(self.numbers) or not all(map(isfinite, numbers)):
            return inf
        scale = hypot(*self.numbers) / len(self.numbers) ** 0.5
        return max(abs(a - b) for a, b in zip(numbers, self.numbers, strict=True)) / scale


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven of a model on its device.

    `sample` says what was compared ("" if the model has none), `deviation` by how much it was off,
    relative to the RMS of the numbers, and `tolerance` what was allowed. `steps` are what was
    rejected and why: kernels, float16, tiers. `remembered` is the name under which an earlier load
    stored the outcome, empty if this one found it. `ms` is the time it took.
    """

    sample: str = ""
    tolerance: float = 0.0
    deviation: float | None = None
    steps: tuple[str, ...] = ()
    remembered: str = ""
    ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


class Prover(Protocol):
    """Checks a model's answers on its device."""

    async def check(self, model: Any) -> None:
        """Prove the answers; WrongResultError if they stay wrong after all replacements."""
        ...

    def verdict(self, wrong: WrongResultError, none: TierUnavailableError) -> BasculeError:
        """Return the error to raise if no other tier is left."""
        ...


@cache
def stored_samples() -> Mapping[str, Sample]:
    """Return the samples by model name."""
    fields = json.loads((Path(__file__).parent / "samples.json").read_text("utf-8"))
    return {
        name: Sample(tuple(s["ids"]), tuple(s["numbers"]), s["tolerance"], tuple(s.get("at", ())))
        for name, s in fields["samples"].items()
    }
