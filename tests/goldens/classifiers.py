"""Tiny sequence classifiers that a test writes anew: cross-encoders, of labels, of several at once.

make_classifier_goldens.py runs transformers and sentence-transformers on the folders, in float64;
classifiers.npz has what came out. Nothing of Bascule is used.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tests.goldens.families import (
    BERT_NAMES,
    ENCODER,
    ENCODERS,
    HERE,
    ROBERTA_NAMES,
    Case,
    Tensors,
    bert_words,
    distilbert,
    modernbert,
    mpnet,
    post_norm_encoder,
    roberta_words,
    unigram_words,
)

QUERY = "w4 w5 w6"
_LONG, _LONGER = (" ".join(f"w{4 + i % k}" for i in range(n)) for k, n in ((91, 30), (83, 60)))
# The query with these: short, one text cut, both cut, nothing but the query.
ANSWERS = ("w7", "w4 w5 w6", "w8 w9 Übung w10!", _LONG, _LONGER, "")
# Pairs whose first text is the longer one, or whose both are empty.
PAIRS = (*((QUERY, text) for text in ANSWERS), (_LONGER, "w9"), (_LONGER, _LONG), ("", ""))
SINGLES = ("w4", "w5 w6 w98", _LONGER, "", "w7 w7 Übung w8!")
MAX_TOKENS = 40


def _bert(made: Tensors, labels: int) -> None:
    post_norm_encoder(made, "bert.")
    made.linear("classifier", labels, made.config["hidden_size"])


def _roberta(made: Tensors, labels: int, prefix: str = "roberta.") -> None:
    c = made.config["hidden_size"]
    post_norm_encoder(made, prefix)
    made.linear("classifier.dense", c, c)
    made.linear("classifier.out_proj", labels, c)


def _distilbert(made: Tensors, labels: int) -> None:
    distilbert(made, "distilbert.")
    c = made.config["dim"]
    made.linear("pre_classifier", c, c)
    made.linear("classifier", labels, c)


def _labels(*names: str) -> dict[str, Any]:
    return {"id2label": {str(i): name for i, name in enumerate(names)}}


_ENCODERS = {case.name: case for case in ENCODERS}
_CUT = {"model_max_length": MAX_TOKENS}
_BERT = {**ENCODER, "model_type": "bert", "architectures": ["BertForSequenceClassification"]}
_BERT |= {"pad_token_id": 0, "type_vocab_size": 2}
_ROBERTA = {"model_type": "roberta", "architectures": ["RobertaForSequenceClassification"]}
_IDENTITY = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "4.1.0"}


def _mpnet(made: Tensors, labels: int) -> None:
    c = made.config["hidden_size"]
    mpnet(made, "mpnet.")
    made.linear("classifier.dense", c, c)
    made.linear("classifier.out_proj", labels, c)


def _modernbert(made: Tensors, labels: int) -> None:
    c = made.config["hidden_size"]
    modernbert(made, "model.")
    made.matrix("head.dense", c, c)
    made.norm("head.norm", c)
    made.linear("classifier", labels, c)


CLASSIFIERS = (
    Case(
        "a cross-encoder of bert",
        {**_BERT, **_labels("LABEL_0")},
        partial(_bert, labels=1),
        bert_words,
        seed=21,
        names={**BERT_NAMES, **_CUT},
    ),
    Case(
        "three labels of roberta",
        {**ENCODER, **_ROBERTA, **_labels("contradiction", "entailment", "neutral")},
        partial(_roberta, labels=3),
        roberta_words,
        seed=22,
        names={**ROBERTA_NAMES, **_CUT},
    ),
    Case(
        # As bge-reranker's, with the activation that ms-marco-MiniLM has.
        "a cross-encoder of xlm-roberta",
        {
            **{**ENCODER, **_labels("LABEL_0"), "sentence_transformers": _IDENTITY},
            **{"model_type": "xlm-roberta", "problem_type": None},
            "architectures": ["XLMRobertaForSequenceClassification"],
        },
        partial(_roberta, labels=1),
        unigram_words,
        seed=23,
        names={**ROBERTA_NAMES, **_CUT},
    ),
    Case(
        "two labels of distilbert",
        {
            **{"model_type": "distilbert", "vocab_size": 120, "dim": 32, "hidden_dim": 48},
            **{"n_layers": 2, "n_heads": 4, "max_position_embeddings": 130, "activation": "gelu"},
            **{"sinusoidal_pos_embds": False, "pad_token_id": 0},
            **{"architectures": ["DistilBertForSequenceClassification"]},
            **_labels("NEGATIVE", "POSITIVE"),
        },
        partial(_distilbert, labels=2),
        bert_words,
        seed=24,
        names={**BERT_NAMES, **_CUT},
    ),
    Case(
        "several of four labels at once",
        {
            **{**ENCODER, **_ROBERTA, **_labels("joy", "anger", "fear", "surprise")},
            "problem_type": "multi_label_classification",
        },
        partial(_roberta, labels=4),
        roberta_words,
        seed=25,
        names={**ROBERTA_NAMES, **_CUT},
    ),
    Case(
        "a cross-encoder of mpnet",
        {
            **{**_ENCODERS["mpnet"].config, **_labels("LABEL_0")},
            "architectures": ["MPNetForSequenceClassification"],
        },
        partial(_mpnet, labels=1),
        _ENCODERS["mpnet"].tokenizer,
        seed=26,
        names={**_ENCODERS["mpnet"].names, **_CUT},
    ),
    Case(
        # As gte-reranker-modernbert-base's, whose tokens are averaged.
        "a cross-encoder of modernbert",
        {
            **{**_ENCODERS["modernbert"].config, **_labels("LABEL_0")},
            **{"classifier_pooling": "mean", "classifier_bias": False},
            "architectures": ["ModernBertForSequenceClassification"],
        },
        partial(_modernbert, labels=1),
        bert_words,
        seed=27,
        names={**BERT_NAMES, **_CUT},
    ),
)


def classifier_golden(name: str) -> dict[str, np.ndarray[Any, Any]]:
    """Logits of SINGLES and of PAIRS, probabilities of SINGLES; scores of PAIRS of one label."""
    with np.load(HERE / "classifiers.npz") as arrays:
        return {key.split(": ")[1]: arrays[key] for key in arrays if key.startswith(f"{name}: ")}
