"""The config of a speech model: an encoder of sound, a decoder of text that attends to it."""

from __future__ import annotations

from dataclasses import dataclass

from bascule.program.program import Dim


@dataclass(frozen=True, slots=True)
class StackConfig:
    """Sizes of the encoder, or of the decoder, with `places` positions."""

    layers: int
    heads: int
    inner: int
    places: int


@dataclass(frozen=True, slots=True)
class SpeechConfig:
    """Checked config of a model with `bands` mel bands, two frames per position of the encoder."""

    vocabulary: int
    hidden: int
    bands: int
    encoder: StackConfig
    decoder: StackConfig
    eps: float = 1e-5

    @property
    def frames(self) -> int:
        """Frames of a spectrum, 10 ms each."""
        return 2 * self.encoder.places


@dataclass(frozen=True, slots=True)
class Rows:
    """A decoder pass over `count` tokens at once, over `slots` of keys and values.

    Besides logits it gives the cross-attention's queries of the layers `queries`.
    """

    count: int
    slots: Dim
    queries: tuple[int, ...] = ()
