"""The pass of a sentence encoder: a family's encoder, and the modules after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bascule.base.dtypes import DType
from bascule.models.encoder.config import EncoderConfig
from bascule.models.encoder.graph import Encoding
from bascule.models.family import EncoderFamily
from bascule.program.graph import Graph
from bascule.program.program import Dim
from bascule.tasks.sentence_modules import (
    DEFAULT_MODULES,
    SENTENCE,
    TOKENS,
    Module,
    Recording,
    skips_prompts,
)


@dataclass(frozen=True, slots=True)
class Encoder:
    """A family, and the checked config of one of its models."""

    family: EncoderFamily
    config: EncoderConfig


def sentence_encoder(
    encoder: Encoder,
    batch: Dim,
    tokens: Dim,
    *,
    modules: Sequence[Module] = DEFAULT_MODULES,
    weights: DType = "f32",
) -> Graph:
    """Record ids (B, T) u32 and lengths (B) u32 -> embedding (B, D) f32.

    `modules` follow the encoder. If one leaves out prompts, `skipped` (B) u32 is a third input: the
    number of tokens of each text's prompt. `weights` is the dtype of stored matrices; see
    `Encoding`.
    """
    graph = Graph(encoder.family.name)
    ids = graph.input("ids", (batch, tokens), "u32")
    lengths = graph.input("lengths", (batch,), "u32")
    skips = skips_prompts(tuple(modules))
    skipped = graph.input("skipped", (batch,), "u32") if skips else None
    features = encoder.family.phases["encode"](
        Encoding(graph, encoder.config, ids, lengths, weights)
    )
    recording = Recording(graph, {TOKENS: features}, lengths, skipped, weights)
    for module in modules:
        module.record(recording)
    graph.output(recording.features[SENTENCE])  # (B, D)
    return graph
