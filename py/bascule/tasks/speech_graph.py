"""The passes of a speech model: the encoder, and a decoder step from a token to its logits."""

from __future__ import annotations

from dataclasses import dataclass

from bascule.models.decoder.graph import CacheDType
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import SpeechConfig
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program


@dataclass(frozen=True, slots=True)
class Speech:
    """A family's row, and the sizes of one model of it."""

    family: SpeechFamily
    config: SpeechConfig


def speech_programs(speech: Speech, cache: CacheDType) -> list[Program]:
    """Return the decoder step, then the encoder; together they have every parameter."""
    found: list[Program] = []
    for phase in ("decode", "encode"):
        graph = Graph(phase)
        graph.output(speech.family.phases[phase](graph, speech.config, cache))
        found.append(freeze(graph))
    return found
