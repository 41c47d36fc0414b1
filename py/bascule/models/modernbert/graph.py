"""ModernBERT (Warner et al. 2024): norms before each part, rotary angles, gated layers, no biases.

In the order of the computation; B texts of at most T tokens, hidden size C, inner size I.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import Encoding
from bascule.models.encoder.head import Head
from bascule.models.layers import matrix
from bascule.models.modernbert.config import ModernConfig
from bascule.program.program import Computed, Value


def tensors(config: EncoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that `encode` reads, with their shapes."""
    c, inner = config.hidden, config.inner
    yield "embeddings.tok_embeddings.weight", (config.vocabulary, c)
    yield "embeddings.norm.weight", (c,)
    for layer in range(config.layers):
        name = f"layers.{layer}"
        if layer:
            yield f"{name}.attn_norm.weight", (c,)
        yield f"{name}.attn.Wqkv.weight", (3 * c, c)
        yield f"{name}.attn.Wo.weight", (c, c)
        yield f"{name}.mlp_norm.weight", (c,)
        yield f"{name}.mlp.Wi.weight", (2 * inner, c)
        yield f"{name}.mlp.Wo.weight", (c, inner)
    yield "final_norm.weight", (c,)


@dataclass(frozen=True, slots=True)
class _Recording:
    """What all layers share: `zeros` (C) in place of biases, and a kind's angles (P, D)."""

    to: Encoding
    config: ModernConfig
    zeros: Value
    angles: dict[bool, Value]

    def norm(self, x: Value, name: str) -> Value:
        """Record the layer norm over C."""
        weight = self.to.graph.parameter(f"{name}.weight", (self.config.hidden,))
        return self.to.graph.call("layer_norm", x, weight, self.zeros, eps=self.config.eps)

    def linear(self, x: Value, shape: tuple[int, int], name: str, onto: Value | None) -> Value:
        """Record x (..., K) -> (..., N), added to `onto`."""
        weight = matrix(self.to.graph, f"{name}.weight", shape, self.to.weights)
        return self.to.graph.call("linear", x, weight, None, onto, activation="none")


def encode(to: Encoding) -> Value:
    """Record ids and lengths -> features of each token (B, T, C)."""
    graph, config = to.graph, to.config
    assert isinstance(config, ModernConfig)  # as the family's `config` gives it
    c = config.hidden
    zeros = graph.parameter("zeros", (c,), computed=Computed())
    thetas = {kind: config.local_theta if kind else config.theta for kind in set(config.local)}
    angles = {
        kind: graph.parameter(
            f"angles.{'local' if kind else 'full'}",
            (config.positions, c // config.heads),
            computed=Computed(theta),
        )
        for kind, theta in sorted(thetas.items())
    }
    shared = _Recording(to, config, zeros, angles)
    table = matrix(graph, "embeddings.tok_embeddings.weight", (config.vocabulary, c), to.weights)
    x = graph.call("embedding", to.ids, table)  # (B, T, C)
    x = shared.norm(x, "embeddings.norm")
    for layer in range(config.layers):
        x = _layer(shared, x, layer)
    return shared.norm(x, "final_norm")


def _layer(shared: _Recording, x: Value, layer: int) -> Value:
    graph, config, name = shared.to.graph, shared.config, f"layers.{layer}"
    c, inner = config.hidden, config.inner
    normed = shared.norm(x, f"{name}.attn_norm") if layer else x
    mixed = _attended(shared, normed, layer)  # (B, T, C)
    x = shared.linear(mixed, (c, c), f"{name}.attn.Wo", x)

    normed = shared.norm(x, f"{name}.mlp_norm")
    gates = matrix(graph, f"{name}.mlp.Wi.weight", (2 * inner, c), shared.to.weights)
    y = graph.call("gated_linear", normed, gates, activation=config.activation)  # (B, T, I)
    return shared.linear(y, (c, inner), f"{name}.mlp.Wo", x)


def _attended(shared: _Recording, x: Value, layer: int) -> Value:
    graph, config = shared.to.graph, shared.config
    c, local = config.hidden, config.local[layer]
    tensor, dtype = f"layers.{layer}.attn.Wqkv.weight", shared.to.weights
    qkv: list[Value] = []
    for at, part in enumerate("qkv"):
        name, slices = f"layers.{layer}.attn.{part}.weight", {"rows": c, "first": at * c}
        weight = matrix(graph, name, (c, c), dtype, tensor, **slices)
        y = graph.call("linear", x, weight, None, activation="none")
        rotated = part != "v"
        qkv.append(
            graph.call("rope", y, shared.angles[local], size=c // config.heads) if rotated else y
        )
    return graph.call(
        "dot_product_attention",
        *qkv,
        shared.to.lengths,
        heads=config.heads,
        kv_heads=config.heads,
        window=config.window if local else 0,
    )


class ModernHead(Head):
    """Pooled tokens, a dense layer without a bias, its activation and a norm, then the labels."""

    def tensors(
        self, config: EncoderConfig, n_labels: int
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield its tensors with their shapes."""
        c = config.hidden
        yield f"{self.dense}.weight", (c, c)
        yield "head.norm.weight", (c,)
        yield f"{self.labels}.weight", (n_labels, c)
        yield f"{self.labels}.bias", (n_labels,)

    def record(self, to: Encoding, x: Value, n_labels: int) -> Value:
        """Record features (B, T, C) -> logits (B, N). Its matrices stay float32."""
        graph, config = to.graph, to.config
        assert isinstance(config, ModernConfig)
        c = config.hidden
        pooled = graph.call("pool", x, to.lengths, kind=config.pooling)  # (B, C)
        weight = graph.parameter(f"{self.dense}.weight", (c, c))
        y = graph.call("linear", pooled, weight, None, activation=config.head_activation)
        scale = graph.parameter("head.norm.weight", (c,))
        zeros = graph.parameter("head.zeros", (c,), computed=Computed())
        y = graph.call("layer_norm", y, scale, zeros, eps=config.eps)
        return to.linear(y, n_labels, self.labels, "f32")
