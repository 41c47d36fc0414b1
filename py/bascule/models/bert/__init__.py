"""BERT (Devlin et al. 2019) as a sentence encoder or a sequence classifier."""

from __future__ import annotations

import re
from functools import partial

from bascule.models.encoder.config import read_encoder_config
from bascule.models.encoder.files import bert_like
from bascule.models.encoder.head import Head

# Classes whose files have a plain encoder's weights; their heads are ignored, as transformers'
# BertModel does.
_ARCHITECTURES = (
    "BertModel",
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForNextSentencePrediction",
)

BERT = bert_like(
    name="bert",
    examples="such as all-MiniLM-L6-v2, bge, gte, e5",
    model_types=("bert",),
    config=partial(read_encoder_config, architectures=_ARCHITECTURES),
    prefixes=("bert.",),
    head=Head(("BertForSequenceClassification",), "pooler.dense", "tanh", "classifier"),
    typed_pairs=True,
    # Heads that embeddings do not use, and a table that follows from the config.
    ignored=re.compile(r"pooler\..*|cls\..*|embeddings\.position_ids"),
)
