"""T5 and Flan-T5 (Raffel et al. 2020): text to text by an encoder and a decoder."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bascule.models.family import TextToTextFamily
from bascule.models.text_to_text.config import T5Config, read_config
from bascule.models.text_to_text.graph import decode, encode
from bascule.models.text_to_text.rows import decode_rows, encode_rows


def tensors(config: T5Config) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors that both passes read, with their shapes."""
    c = config.hidden
    yield "shared.weight", (config.vocabulary, c)
    if config.untied:
        yield "lm_head.weight", (config.vocabulary, c)
    for half, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield f"{half}.final_layer_norm.weight", (c,)
        name = f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        yield name, (config.buckets, config.heads)
        parts = ("SelfAttention", "EncDecAttention")[: 1 + (half == "decoder")]
        for layer in range(layers):
            yield from _layer(f"{half}.block.{layer}.layer", config, parts)


def _layer(
    name: str, config: T5Config, attentions: tuple[str, ...]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    c = config.hidden
    for at, attention in enumerate(attentions):
        for part in "qkv":
            yield f"{name}.{at}.{attention}.{part}.weight", (config.width, c)
        yield f"{name}.{at}.{attention}.o.weight", (c, config.width)
        yield f"{name}.{at}.layer_norm.weight", (c,)
    last = f"{name}.{len(attentions)}"
    for part in ("wi_0", "wi_1") if config.gated else ("wi",):
        yield f"{last}.DenseReluDense.{part}.weight", (config.inner, c)
    yield f"{last}.DenseReluDense.wo.weight", (c, config.inner)
    yield f"{last}.layer_norm.weight", (c,)


def _same(name: str) -> str:
    return name


T5 = TextToTextFamily(
    name="t5",
    examples="such as t5-small, flan-t5-base",
    model_types=("t5", "mt5"),
    config=read_config,
    tensors=tensors,
    tensor_name=_same,
    encode=encode,
    decode=decode,
    encode_rows=encode_rows,
    decode_rows=decode_rows,
    # Copies of the embedding, and a table of the first versions that nothing reads.
    ignored=re.compile(
        r"(encoder|decoder)\.embed_tokens\.weight|lm_head\.weight|"
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
    ),
)
