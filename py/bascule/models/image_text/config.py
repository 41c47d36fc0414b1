"""The settings of models whose image and text encoders share one space of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.models.image.config import ImageConfig, LayersConfig


@dataclass(frozen=True, slots=True)
class TextConfig:
    """A causal text encoder; a text has at most `positions` tokens.

    A text's features are those of its first token `eos`, or of its first token without one; where
    `eos` is None, of the token of the highest id.
    """

    layers: LayersConfig
    vocabulary: int
    positions: int
    eos: int | None

    def read_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Return the ids up to the token that has the text's features."""
        if self.eos is None:
            last = max(range(len(ids)), key=ids.__getitem__)
        else:
            last = ids.index(self.eos) if self.eos in ids else 0
        return ids[: last + 1]


@dataclass(frozen=True, slots=True)
class ImageTextConfig:
    """Both encoders; embeddings have `dimension` numbers."""

    image: ImageConfig
    text: TextConfig
    dimension: int
