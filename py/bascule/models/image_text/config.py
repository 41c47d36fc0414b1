"""The configs of models whose image and text encoders share one embedding space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.models.image.config import ImageConfig, LayersConfig


@dataclass(frozen=True, slots=True)
class TextConfig:
    """A text encoder; a text has at most `positions` tokens.

    Without `pad` attention is causal, and a text's features are those of its first token `eos` (of
    its first token if it has no `eos`); if `eos` is None, of the token with the highest id. With
    `pad` a text is padded with that id to `positions` tokens, which all attend to each other, and
    its features are those of the last.
    """

    layers: LayersConfig
    vocabulary: int
    positions: int
    eos: int | None = None
    pad: int | None = None

    def read_ids(self, ids: Sequence[int]) -> Sequence[int]:
        """Return the ids of a pass: padded, or up to the token that has the text's features."""
        if self.pad is not None:
            return [*ids, *[self.pad] * (self.positions - len(ids))]
        if self.eos is None:
            last = max(range(len(ids)), key=ids.__getitem__)
        else:
            last = ids.index(self.eos) if self.eos in ids else 0
        return ids[: last + 1]


@dataclass(frozen=True, slots=True)
class ImageTextConfig:
    """Both encoders; embeddings have `dimension` elements."""

    image: ImageConfig
    text: TextConfig
    dimension: int
