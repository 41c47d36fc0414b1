"""Proof that a loaded model answers as it should: a stored sample, and the outcome.

A sample is a few token ids and a few numbers of the answer, by an implementation that is not ours
(transformers in float64 on the same weights; tests/goldens/make_samples.py wrote samples.json). It
is there for the models of texts that Bascule knows by name, whose files are known by their hashes,
so that one answer is the right one. Any other model, such as a user's own, has no such answer:
numpy could give one, but only with a second copy of the weights, for which there may be no memory.
For those, and before the sample, each kernel proves itself on small numbers of its own
(`backend/webgpu/trials.py`), which needs no weights at all.
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
    """Token `ids`, and `numbers` of the answer: of an embedding the first ones, of a language model
    the logits after the last id of the tokens `at`, of which the first is to be generated next.
    """

    ids: tuple[int, ...]
    numbers: tuple[float, ...]
    tolerance: float
    at: tuple[int, ...] = ()

    def allowed(self, weights: DType | None) -> float:
        """The deviation that is allowed where float weights were made into such blocks."""
        return self.tolerance + (FEWER_BITS.get(weights, 0.0) if weights else 0.0)

    def deviation(self, numbers: Sequence[float]) -> float:
        """The largest one, in units of the numbers' root mean square; inf where one is NaN."""
        if len(numbers) != len(self.numbers) or not all(map(isfinite, numbers)):
            return inf
        scale = hypot(*self.numbers) / len(self.numbers) ** 0.5
        return max(abs(a - b) for a, b in zip(numbers, self.numbers, strict=True)) / scale


@dataclass(frozen=True, slots=True)
class Proof:
    """What was proven of a model on its device.

    `sample` says what was compared ("" where the model has none), `deviation` by how much it was
    off, in units of the numbers' root mean square, and `tolerance` what was allowed. `steps` are
    what was rejected and why: kernels, float16, tiers. `remembered` says under what name an earlier
    load has stored the outcome, and is empty where this one found it. `ms` is what it cost.
    """

    sample: str = ""
    tolerance: float = 0.0
    deviation: float | None = None
    steps: tuple[str, ...] = ()
    remembered: str = ""
    ms: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


class Prover(Protocol):
    """Checks a model's answers on its device."""

    async def check(self, model: Any) -> None:
        """Prove the answers; WrongResultError where nothing that the device offers helps."""
        ...

    def verdict(self, wrong: WrongResultError, none: TierUnavailableError) -> BasculeError:
        """The error to raise where no other tier remains."""
        ...


@cache
def stored_samples() -> Mapping[str, Sample]:
    """By the names of the models."""
    fields = json.loads((Path(__file__).parent / "samples.json").read_text("utf-8"))
    return {
        name: Sample(tuple(s["ids"]), tuple(s["numbers"]), s["tolerance"], tuple(s.get("at", ())))
        for name, s in fields["samples"].items()
    }
