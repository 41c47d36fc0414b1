"""Makes classifiers.npz: what transformers and sentence-transformers give for classifiers.py.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.13.0 \\
        transformers==5.23.0 sentence-transformers==6.2.0
    /tmp/goldens/bin/python tests/goldens/make_classifier_goldens.py

Weights and arithmetic are float64, one text or pair a batch. Probabilities are those of the
text-classification pipeline, scores those of CrossEncoder.predict.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.classifiers import CLASSIFIERS, MAX_TOKENS, PAIRS, SINGLES
from tests.goldens.families import HERE, Case, build
from tests.goldens.make_family_goldens import RotaryByKind64


def input_names(case: Case) -> list[str]:
    """What the model's own class of tokenizers gives: BERT's alone has types of tokens."""
    types = ["token_type_ids"] if case.config["model_type"] == "bert" else []
    return ["input_ids", *types, "attention_mask"]


def answers(case: Case, folder: Path) -> dict[str, Any]:
    """All that the two libraries say of a folder."""
    net = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float64).eval()
    if hasattr(net.base_model, "rotary_emb"):
        net.base_model.rotary_emb = RotaryByKind64(net.config)
    words = AutoTokenizer.from_pretrained(folder)
    words.model_input_names = inputs = input_names(case)

    def logits(*texts: str) -> Any:
        # As lists: an empty second text that stands alone would count as none.
        row = words(
            *([text] for text in texts), truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        assert list(row) == inputs
        with torch.no_grad():
            return net(**row).logits[0].numpy()

    results = {"singles": [logits(text) for text in SINGLES], "pairs": [logits(*p) for p in PAIRS]}
    classify = pipeline("text-classification", model=net, tokenizer=words, top_k=None)
    labels = [net.config.id2label[i] for i in range(net.config.num_labels)]
    results["probabilities"] = []
    for text in SINGLES:
        (rows,) = classify([text], truncation=True, max_length=MAX_TOKENS)
        shares = {row["label"]: row["score"] for row in rows}
        results["probabilities"].append([shares[label] for label in labels])
    if len(labels) == 1:
        model = CrossEncoder(str(folder), device="cpu").double()
        model.tokenizer.model_input_names = inputs
        model[0].model = net
        results["scores"] = [model.predict([pair])[0] for pair in PAIRS]
    return {f"{case.name}: {key}": np.asarray(rows, np.float32) for key, rows in results.items()}


if __name__ == "__main__":
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for case in CLASSIFIERS:
            arrays |= answers(case, build(case, Path(home) / case.name))
            print(case.name, arrays[f"{case.name}: pairs"].ravel()[:8])
    np.savez_compressed(HERE / "classifiers.npz", **arrays)
