"""RoBERTa and XLM-RoBERTa (Liu et al. 2019, Conneau et al. 2020): BERT's layers."""

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

_NAMES = ("Roberta", "XLMRoberta", "Camembert")
_ARCHITECTURES = tuple(f"{name}{head}" for name in _NAMES for head in ("Model", "ForMaskedLM"))
_CLASSIFIERS = tuple(f"{name}ForSequenceClassification" for name in _NAMES)


def read_config(config: Mapping[str, Any], file: str) -> EncoderConfig:
    """Check and read a config.json; errors as `EncoderFamily.config`."""
    result = read_encoder_config(config, file, _ARCHITECTURES)
    # Positions count from the one after the padding's.
    first = Settings(config, file).integer("pad_token_id", 1, 0) + 1
    if first >= result.positions:
        problem = f"max_position_embeddings {result.positions} leaves no position from {first} on"
        raise ModelFileError(file, problem)
    return replace(result, positions=result.positions - first, first_position=first)


ROBERTA = bert_like(
    name="roberta",
    examples="such as all-distilroberta-v1, multilingual-e5, bge-m3",
    model_types=("roberta", "xlm-roberta", "camembert"),
    config=read_config,
    prefixes=("roberta.",),
    head=Head(_CLASSIFIERS, "classifier.dense", "tanh", "classifier.out_proj"),
    ignored=re.compile(r"pooler\..*|lm_head\..*|embeddings\.position_ids"),
)
