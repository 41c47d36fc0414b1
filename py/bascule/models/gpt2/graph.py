"""GPT-2 (Radford et al. 2019): learned positions, layer norms before each part, biases everywhere.

In the order of the computation; sizes as in `models.decoder.graph`.
"""

from __future__ import annotations

from collections.abc import Iterator

from bascule.models.decoder.config import DecoderConfig
from bascule.models.decoder.graph import PLACES, Decoding, Layer
from bascule.program.program import Value


def tensors(config: DecoderConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that `decode` reads, with their shapes."""
    c, inner, columns = config.hidden, config.inner, config.columns
    yield "token_embd.weight", (config.vocabulary, c)
    yield "position_embd.weight", (config.context, c)
    yield from _pair("output_norm", (c,))
    yield "output.weight", (config.vocabulary, c)
    for layer in range(config.layers):
        for part, shape in (
            ("attn_norm", (c,)),
            ("attn_qkv", (3 * c, c)),
            ("attn_output", (c, c)),
            ("ffn_norm", (c,)),
            ("ffn_up", (inner, c)),
            ("ffn_down", (c, inner)),
        ):
            yield from _pair(f"blk.{layer}.{part}", shape, by_column=part in columns)


def _pair(
    name: str, shape: tuple[int, ...], *, by_column: bool = False
) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape[::-1] if by_column else shape
    yield f"{name}.bias", shape[:1]


def decode(to: Decoding) -> Value | None:
    """Record tokens -> logits (T, V); None with `fills_cache`."""
    graph, config, call = to.graph, to.config, to.graph.call
    table = to.weight("token_embd", (config.vocabulary, config.hidden))
    x = to.embedded(table)  # (T, C)
    places = graph.state(PLACES, (config.context,), "u32")
    learned = to.weight("position_embd", (config.context, config.hidden))
    at = call("token_embedding", learned, places, to.position, length=to.length)
    x = call("add", x, at)
    for layer in to.layers():
        x = _layer(to, x, layer)
    return None if to.fills_cache else to.logits(_norm(to, x, "output_norm"), table)  # (T, V)


def _layer(to: Decoding, x: Value, layer: Layer) -> Value:
    config, call, name = to.config, to.graph.call, layer.name
    qkv = _linear(to, _norm(to, x, f"{name}.attn_norm"), 3 * config.hidden, f"{name}.attn_qkv")
    q = to.rotated(qkv, layer)
    if layer.only_cache:
        return q
    mixed = to.attended(q, layer)  # (T, C)
    x = _linear(to, mixed, config.hidden, f"{name}.attn_output", x)

    y = _linear(to, _norm(to, x, f"{name}.ffn_norm"), config.inner, f"{name}.ffn_up")  # (T, I)
    y = call("activate", y, kind="gelu_tanh")
    return _linear(to, y, config.hidden, f"{name}.ffn_down", x)


def _linear(to: Decoding, x: Value, n: int, name: str, residual: Value | None = None) -> Value:
    k = x.shape[-1]
    assert isinstance(k, int)  # only T is a Dim
    if name.rsplit(".", 1)[-1] in to.config.columns:
        weight = to.graph.parameter(f"{name}.weight", (k, n))
        y = to.graph.call("matmul", x, weight)
        y = to.graph.call("add", y, to.graph.parameter(f"{name}.bias", (n,)))
        return y if residual is None else to.graph.call("add", y, residual)
    weight, bias = to.weight(name, (n, k)), to.bias(name, n)
    return to.graph.call("linear", x, weight, bias, residual, activation="none")


def _norm(to: Decoding, x: Value, name: str) -> Value:
    weight = to.graph.parameter(f"{name}.weight", (to.config.hidden,))
    bias = to.graph.parameter(f"{name}.bias", (to.config.hidden,))
    return to.graph.call("layer_norm", x, weight, bias, eps=to.config.eps)
