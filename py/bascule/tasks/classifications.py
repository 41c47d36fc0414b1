"""A classifier's results: labels with probabilities, and scores of texts for a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp

from bascule.base.arguments import whole_number
from bascule.models.encoder.classes import Squash


@dataclass(frozen=True, slots=True)
class Classification:
    """The most probable `label` of a text, and the probabilities of all labels.

    If a classifier assigns several labels at once they do not sum to 1. `n_tokens` were read; a
    `truncated` text had more.
    """

    label: str
    probability: float
    probabilities: Mapping[str, float]
    n_tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class Ranked:
    """The `index` of a ranked text, and its score."""

    index: int
    score: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well texts answer a query: `scores` in the order of the texts, higher is better.

    `n_tokens` are the tokens of each pair that were read, and `truncated` the indices of the texts
    whose pair had more.
    """

    scores: tuple[float, ...]
    n_tokens: tuple[int, ...]
    truncated: tuple[int, ...]

    def best(self, count: int | None = None) -> list[Ranked]:
        """Return the `count` best texts (by default all), best first."""
        n = len(self.scores) if count is None else whole_number("count", count, 0)
        order = sorted(range(len(self.scores)), key=lambda at: -self.scores[at])
        return [Ranked(at, self.scores[at]) for at in order[:n]]


def probabilities(logits: Sequence[float], squash: Squash) -> list[float]:
    """Convert logits to probabilities, in float64 and without overflow."""
    match squash:
        case "none":
            return list(logits)
        case "sigmoid":
            return [1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x)) for x in logits]
        case "softmax":
            largest = max(logits)
            parts = [exp(x - largest) for x in logits]
            total = sum(parts)
            return [part / total for part in parts]
