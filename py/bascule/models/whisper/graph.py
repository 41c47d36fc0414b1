"""Whisper's two passes: a spectrum to the keys and values of each decoder layer, tokens to logits.

In the order of the computation. Hidden size C, H heads of size D, inner size I, F frames of a
spectrum, T = F / 2 positions of the encoder, S slots of the decoder's own cache, V vocabulary.
Layers normalize before each part. Both passes share the states `cross.<layer>` (T, 2C) by name:
keys and values of the sound, computed once.
"""

from __future__ import annotations

from dataclasses import dataclass

from bascule.models.decoder.graph import CacheDType
from bascule.models.layers import conv1d
from bascule.models.speech.config import SpeechConfig
from bascule.program.graph import Graph
from bascule.program.program import Computed, Value

# States (1) u32 with the cross-attention's first position, 0, and its last.
CROSS_FIRST, CROSS_LAST = "cross_first", "cross_last"
# A state (P) u32 with each position's number, for the table of learned positions.
PLACES = "places"
# Rows of the table of rotary angles that rope_append reads up to position 511; all rotate by 0.
N_ANGLES = 258


@dataclass(frozen=True, slots=True)
class WhisperGraph:
    """A Whisper pass that is being recorded; caches hold `cache` numbers."""

    graph: Graph
    config: SpeechConfig
    cache: CacheDType = "f32"

    def linear(self, x: Value, n: int, name: str, residual: Value | None = None) -> Value:
        """Record x (..., K) -> (..., N) with a bias."""
        k = x.shape[-1]
        assert isinstance(k, int)  # all sizes are known
        weight = self.graph.parameter(f"{name}.weight", (n, k))
        bias = self.graph.parameter(f"{name}.bias", (n,))
        return self.graph.call("linear", x, weight, bias, residual, activation="none")

    def stacked(self, x: Value, name: str, parts: str) -> Value:
        """Record x (..., C) -> the projections `parts` (of "qkv") side by side; k has no bias."""
        c, graph = self.config.hidden, self.graph
        names = [f"{name}.{part}_proj" for part in parts]
        tensors = [f"{part}.weight" for part in names]
        weight = graph.parameter(f"{name}.{parts}.weight", (len(parts) * c, c), *tensors)
        biases = [
            graph.parameter(f"{part}.bias", (c,), computed=Computed() if at == "k" else None)
            for at, part in zip(parts, names, strict=True)
        ]
        return graph.call("linear", x, weight, graph.call("concat", *biases), activation="none")

    def norm(self, x: Value, name: str) -> Value:
        """Record the layer norm over C."""
        weight, bias = (
            self.graph.parameter(f"{name}.{part}", (self.config.hidden,))
            for part in ("weight", "bias")
        )
        return self.graph.call("layer_norm", x, weight, bias, eps=self.config.eps)

    def fed_forward(self, x: Value, inner: int, name: str) -> Value:
        """Record the feed-forward part of a layer, added to x."""
        y = self.linear(self.norm(x, f"{name}.final_layer_norm"), inner, f"{name}.fc1")
        y = self.graph.call("activate", y, kind="gelu")
        return self.linear(y, self.config.hidden, f"{name}.fc2", x)

    def cross_cache(self, layer: int) -> Value:
        """Declare a decoder layer's keys and values of the sound (T, 2C)."""
        shape = (self.config.encoder.places, 2 * self.config.hidden)
        return self.graph.state(f"cross.{layer}", shape, self.cache)


def encode(to: WhisperGraph) -> Value:
    """Record the input `mel` (bands, F) -> encoder states (1, T, C).

    Fills the states `cross.<layer>`. The input `lengths` (1) u32 holds T.
    """
    graph, config = to.graph, to.config
    c, places = config.hidden, config.encoder.places
    mel = graph.input("mel", (config.bands, config.frames))
    lengths = graph.input("lengths", (1,), "u32")
    name = "model.encoder"
    x = _convolution(to, mel, f"{name}.conv1", stride=1)  # (F, C)
    x = _convolution(to, graph.call("transpose", x, axes="10"), f"{name}.conv2", stride=2)  # (T, C)
    x = graph.call("add", x, graph.parameter(f"{name}.embed_positions.weight", (places, c)))
    x = graph.reshape(x, (1, places, c))
    for layer in range(config.encoder.layers):
        x = _encoder_layer(to, x, lengths, f"{name}.layers.{layer}")
    x = to.norm(x, f"{name}.layer_norm")
    first = graph.state(CROSS_FIRST, (1,), "u32")
    for layer in range(config.decoder.layers):
        kv = to.stacked(x, f"model.decoder.layers.{layer}.encoder_attn", "kv")
        kv = graph.reshape(kv, (places, 2 * c))
        graph.call("kv_append", kv, to.cross_cache(layer), first)
    return x


def _convolution(to: WhisperGraph, x: Value, name: str, *, stride: int) -> Value:
    c, channels = to.config.hidden, x.shape[0]
    assert isinstance(channels, int)
    weight = to.graph.parameter(f"{name}.weight", (c, 3 * channels))
    bias = to.graph.parameter(f"{name}.bias", (c,))
    y = conv1d(to.graph, x, weight, bias, width=3, stride=stride, pad=1)
    return to.graph.call("activate", y, kind="gelu")


def _encoder_layer(to: WhisperGraph, x: Value, lengths: Value, name: str) -> Value:
    half, c = to.config.encoder, to.config.hidden
    qkv = to.stacked(to.norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn", "qkv")
    mixed = to.graph.call("attention", qkv, lengths, heads=half.heads)  # (1, T, C)
    x = to.linear(mixed, c, f"{name}.self_attn.out_proj", x)
    return to.fed_forward(x, half.inner, name)


def decode(to: WhisperGraph) -> Value:
    """Record the state `tokens` (S) u32 at `position` (1) u32 -> logits (1, V).

    One token per pass: in the cross-attention the one query has the last position, so that it
    attends to all of the sound.
    """
    graph, config = to.graph, to.config
    c, slots = config.hidden, config.decoder.places
    tokens, places = (graph.state(name, (slots,), "u32") for name in ("tokens", PLACES))
    position, last = (graph.state(name, (1,), "u32") for name in ("position", CROSS_LAST))
    angles = graph.state("angles", (N_ANGLES, c // config.decoder.heads))
    name = "model.decoder"
    table = graph.parameter(f"{name}.embed_tokens.weight", (config.vocabulary, c))
    learned = graph.parameter(f"{name}.embed_positions.weight", (slots, c))
    x = graph.call("token_embedding", table, tokens, position, length=1)  # (1, C)
    x = graph.call("add", x, graph.call("token_embedding", learned, places, position, length=1))
    for layer in range(config.decoder.layers):
        own = graph.state(f"cache.{layer}", (slots, 2 * c), to.cache)
        x = _decoder_layer(
            to, x, own, to.cross_cache(layer), angles, position, last, f"{name}.layers.{layer}"
        )
    x = to.norm(x, f"{name}.layer_norm")
    return graph.call("linear", x, table, activation="none")  # (1, V)


def _decoder_layer(
    to: WhisperGraph,
    x: Value,
    own: Value,
    cross: Value,
    angles: Value,
    position: Value,
    last: Value,
    name: str,
) -> Value:
    half, c, call = to.config.decoder, to.config.hidden, to.graph.call
    heads = {"heads": half.heads, "kv_heads": half.heads, "size": c // half.heads}
    qkv = to.stacked(to.norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn", "qkv")
    q = call("rope_append", qkv, own, angles, position, **heads, pairs="halves")
    mixed = call("cached_attention", q, own, position, **heads, window=0)
    x = to.linear(mixed, c, f"{name}.self_attn.out_proj", x)

    q = to.linear(to.norm(x, f"{name}.encoder_attn_layer_norm"), c, f"{name}.encoder_attn.q_proj")
    mixed = call("cached_attention", q, cross, last, **heads, window=0)
    x = to.linear(mixed, c, f"{name}.encoder_attn.out_proj", x)
    return to.fed_forward(x, half.inner, name)
