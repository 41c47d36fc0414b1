"""Heads of sequence classifiers: a dense layer over a text's first token, then the labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import Encoding
from bascule.program.program import Value


@dataclass(frozen=True, slots=True)
class Head:
    """The head of models of these `architectures`.

    logits = labels(activation(dense(first token))); `dense` and `labels` name the two layers.
    """

    architectures: tuple[str, ...]
    dense: str
    activation: str
    labels: str

    def tensors(
        self, config: EncoderConfig, n_labels: int
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield its tensors with their shapes."""
        for name, rows in ((self.dense, config.hidden), (self.labels, n_labels)):
            yield f"{name}.weight", (rows, config.hidden)
            yield f"{name}.bias", (rows,)

    def record(self, to: Encoding, x: Value, n_labels: int) -> Value:
        """Record features (B, T, C) -> logits (B, N). Its matrices stay float32."""
        pooled = to.graph.call("pool", x, to.lengths, kind="cls")  # (B, C)
        y = to.linear(pooled, to.config.hidden, self.dense, "f32")
        y = to.graph.call("activate", y, kind=self.activation)
        return to.linear(y, n_labels, self.labels, "f32")
