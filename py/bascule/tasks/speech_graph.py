"""The passes of a speech model: the encoder, and decoder steps to logits or to a token."""

from __future__ import annotations

from dataclasses import dataclass

from bascule.models.decoder.graph import CacheDType
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import SpeechConfig
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops.sampling import RULES
from bascule.program.program import Program


@dataclass(frozen=True, slots=True)
class SpeechSpec:
    """A family's row, and the config of one of its models."""

    family: SpeechFamily
    config: SpeechConfig


def speech_programs(speech: SpeechSpec, cache: CacheDType, times: int) -> list[Program]:
    """Return the decoder step to logits, the encoder, and the step to the next token.

    The first two have every parameter. Ids from `times` on are timestamps.
    """
    decode, encode = speech.family.phases["decode"], speech.family.phases["encode"]
    to_logits, encoder, to_token = Graph("decode"), Graph("encode"), Graph("choose")
    to_logits.output(decode(to_logits, speech.config, cache))
    encoder.output(encode(encoder, speech.config, cache))
    logits = decode(to_token, speech.config, cache)
    tokens = to_token.state("tokens", (speech.config.decoder.places,), "u32")
    position = to_token.state("position", (1,), "u32")
    kinds = to_token.state("kinds", (speech.config.vocabulary,), "u32")
    rules = to_token.state("rules", (RULES,), "u32")
    to_token.output(
        to_token.call("allowed_token", logits, tokens, position, kinds, rules, times=times)
    )
    return [freeze(graph) for graph in (to_logits, encoder, to_token)]
