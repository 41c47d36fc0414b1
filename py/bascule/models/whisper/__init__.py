"""Whisper (Radford et al. 2022): speech to text by an encoder and a decoder."""

from __future__ import annotations

import re

from bascule.models.decoder.graph import CacheDType
from bascule.models.family import SpeechFamily
from bascule.models.speech.config import Rows, SpeechConfig
from bascule.models.whisper.config import read_config, settings_files
from bascule.models.whisper.ctranslate2 import read_converted
from bascule.models.whisper.files import as_matrices, tensors
from bascule.models.whisper.graph import WhisperGraph, decode, encode
from bascule.models.whisper.rows import decode_rows
from bascule.models.whisper.states import initial_states
from bascule.program.graph import Graph
from bascule.program.program import Value


def _encode(graph: Graph, config: SpeechConfig, cache: CacheDType) -> Value:
    return encode(WhisperGraph(graph, config, cache))


def _decode(graph: Graph, config: SpeechConfig, cache: CacheDType) -> Value:
    return decode(WhisperGraph(graph, config, cache))


def _decode_rows(graph: Graph, config: SpeechConfig, cache: CacheDType, rows: Rows) -> list[Value]:
    return decode_rows(WhisperGraph(graph, config, cache), rows)


WHISPER = SpeechFamily(
    name="whisper",
    examples="whisper-tiny.en, whisper-base",
    model_types=("whisper",),
    tensor_name=lambda name: name,
    ignored=re.compile(r"proj_out\.weight"),  # the embedding of tokens once more
    config=read_config,
    tensors=tensors,
    as_matrices=as_matrices,
    phases={"encode": _encode, "decode": _decode},
    decode_rows=_decode_rows,
    states=initial_states,
    converted_keys=frozenset(("suppress_ids", "suppress_ids_begin")),
    read_converted=read_converted,
    settings_files=settings_files,
)
