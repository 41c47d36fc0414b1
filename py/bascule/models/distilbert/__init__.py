"""DistilBERT (Sanh et al. 2019): BERT's layers without types of tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bascule.models.encoder.config import EncoderConfig, Keys, read_encoder_config
from bascule.models.encoder.files import bert_like
from bascule.models.encoder.head import Head

_ARCHITECTURES = ("DistilBertModel", "DistilBertForMaskedLM")
_KEYS = Keys("dim", "n_layers", "n_heads", "hidden_dim", "activation")
_EPS = 1e-12
# The names that BERT's parts of a layer have here.
_PARTS = {
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}


def read_config(config: Mapping[str, Any], file: str) -> EncoderConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    result = read_encoder_config(config, file, _ARCHITECTURES, _KEYS)
    return replace(result, eps=_EPS, token_types=False)


def tensor_name(name: str) -> str:
    """Return a folder's name of a tensor of the graph."""
    if not name.startswith("encoder.layer."):
        return name
    layer, part = name.removeprefix("encoder.layer.").split(".", 1)
    part, kind = part.rsplit(".", 1)
    return f"transformer.layer.{layer}.{_PARTS[part]}.{kind}"


DISTILBERT = bert_like(
    name="distilbert",
    examples="such as multi-qa-distilbert-cos-v1",
    model_types=("distilbert",),
    config=read_config,
    tensor_name=tensor_name,
    prefixes=("distilbert.",),
    head=Head(("DistilBertForSequenceClassification",), "pre_classifier", "relu", "classifier"),
    ignored=re.compile(r"vocab_(transform|layer_norm|projector)\..*|embeddings\.position_ids"),
)
