"""ModernBERT (Warner et al. 2024)."""

from __future__ import annotations

import re

from bascule.models.family import EncoderFamily
from bascule.models.modernbert.config import read_config
from bascule.models.modernbert.graph import ModernHead, encode, tensors

MODERN_BERT = EncoderFamily(
    name="modernbert",
    examples="such as gte-modernbert-base, nomic-modernbert",
    model_types=("modernbert",),
    config=read_config,
    tensors=tensors,
    tensor_name=str,
    phases={"encode": encode},
    prefixes=("model.",),
    head=ModernHead(("ModernBertForSequenceClassification",), "head.dense", "", "classifier"),
    ignored=re.compile(r"head\..*|decoder\..*"),
)
