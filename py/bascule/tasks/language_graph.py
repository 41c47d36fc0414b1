"""The passes of a language model: a family's decoder, then the choice of the next token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bascule.models.decoder.config import MAX_CONTEXT, DecoderConfig
from bascule.models.decoder.graph import CacheDType, Decoding
from bascule.models.family import DecoderFamily
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# How a pass ends: none (prefill), the next token, or the logits of all its tokens.
Head = Literal["none", "argmax", "sample", "penalised", "logits"]


@dataclass(frozen=True, slots=True)
class Decoder:
    """A family, and the checked config of one of its models."""

    family: DecoderFamily
    config: DecoderConfig


def decoder_pass(
    decoder: Decoder,
    length: int | Dim,
    slots: Dim,
    *,
    head: Head,
    cache: CacheDType,
    window: int,
) -> Graph:
    """Record a pass over `length` tokens from `position` on.

    With head "none" only the cache is filled, and nothing else is computed; "argmax", "sample" and
    "penalised" (length 1) write the next token and advance `position`; "logits" gives (T, V) f32.
    `window` limits how far back a token attends (0: as far as the model does).
    """
    config = decoder.config
    graph = Graph(f"{decoder.family.name} {head}")
    tokens = graph.state("tokens", (slots,), "u32")
    position = graph.state("position", (1,), "u32")
    angles = graph.state("angles", (Dim("A", MAX_CONTEXT), config.size))
    logits = decoder.family.phases["decode"](
        Decoding(
            graph,
            config,
            length,
            slots,
            cache,
            window=window,
            fills_cache=head == "none",
            tokens=tokens,
            position=position,
            angles=angles,
        )
    )
    if logits is not None:
        record_head(graph, logits, head, tokens, position)
    return graph


def record_head(graph: Graph, logits: Value, head: Head, tokens: Value, position: Value) -> None:
    """Record what follows the logits; see `decoder_pass`."""
    if head == "logits":
        graph.output(logits)
        return
    settings = graph.state("settings", (8,), "u32")
    if head == "penalised":
        logits = graph.call("penalise", logits, tokens, position, settings)
    if head == "argmax":
        graph.call("argmax_token", logits, tokens, position)
    else:
        graph.call("sample_token", logits, tokens, position, settings)
