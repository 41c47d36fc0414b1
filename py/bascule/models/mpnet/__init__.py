"""MPNet (Song et al. 2020): BERT's layers, whose attention adds a bias by distance."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bascule.errors import ModelFileError
from bascule.models.encoder.config import EncoderConfig, read_encoder_config
from bascule.models.encoder.files import bert_like
from bascule.models.encoder.head import Head
from bascule.models.settings import Settings

_ARCHITECTURES = ("MPNetModel", "MPNetForMaskedLM")
# The only number that transformers' MPNetEncoder computes with.
_BUCKETS = 32
# Positions count from the one after the padding's, which is 1 whatever the config says.
_FIRST = 2
# The names that BERT's parts of a layer have here.
_PARTS = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}


def read_config(config: Mapping[str, Any], file: str) -> EncoderConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    result = read_encoder_config(config, file, _ARCHITECTURES)
    Settings(config, file).expect({"relative_attention_num_buckets": _BUCKETS})
    if result.positions <= _FIRST:
        problem = f"max_position_embeddings {result.positions} leaves no position from {_FIRST} on"
        raise ModelFileError(file, problem)
    positions = result.positions - _FIRST
    return replace(
        result,
        positions=positions,
        first_position=_FIRST,
        token_types=False,
        relative_buckets=_BUCKETS,
    )


def tensor_name(name: str) -> str:
    """Return a folder's name of a tensor of the graph."""
    for own, theirs in _PARTS.items():
        if f".{own}." in name:
            return name.replace(own, theirs)
    return name


MPNET = bert_like(
    name="mpnet",
    examples="such as all-mpnet-base-v2",
    model_types=("mpnet",),
    config=read_config,
    tensor_name=tensor_name,
    prefixes=("mpnet.",),
    head=Head(
        ("MPNetForSequenceClassification",), "classifier.dense", "tanh", "classifier.out_proj"
    ),
    ignored=re.compile(r"pooler\..*|lm_head\..*|embeddings\.position_ids"),
)
