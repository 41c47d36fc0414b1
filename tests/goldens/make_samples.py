"""Makes py/bascule/tasks/samples.json out of the goldens of the models that Bascule knows.

    python tests/goldens/make_samples.py

The goldens are by transformers in float64 (make_goldens.py, make_llama_goldens.py), on the files
whose hashes stand in the registry.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "py" / "bascule" / "tasks" / "samples.json"

TEXT = "A cat sits on the mat."
N_NUMBERS = 16
# Reordered sums in float32 are off by 1e-5 at most, see tests/tasks/test_samples.py.
ENCODER_TOLERANCE = 1e-3
N_TOP = 8
# Tokens of the prompt: at its end the next token leads by much.
SHORTEST, LONGEST = 6, 15
# Halves in the KV cache and in tiles of weights.
LANGUAGE_TOLERANCE = 1e-2


def minilm() -> dict[str, Any]:
    result = json.loads((HERE / "minilm.json").read_text())
    at = result["texts"].index(TEXT)
    numbers = np.load(HERE / "minilm.npy")[at, :N_NUMBERS]
    return {
        "text": TEXT,
        "ids": result["ids"][at],
        "numbers": [round(float(n), 8) for n in numbers],
        "tolerance": ENCODER_TOLERANCE,
    }


def smollm2() -> dict[str, Any]:
    result = json.loads((HERE / "smollm2" / "long.json").read_text())
    logits = np.load(HERE / "smollm2" / "long.npz")["top_logits"]
    leads = logits[:, 0] - logits[:, 1]
    length = SHORTEST + int(np.argmax(leads[SHORTEST - 1 : LONGEST]))
    return {
        "ids": result["ids"][:length],
        "at": result["top_ids"][length - 1][:N_TOP],
        "numbers": [round(float(n), 6) for n in logits[length - 1, :N_TOP]],
        "tolerance": LANGUAGE_TOLERANCE,
    }


if __name__ == "__main__":
    samples = {"all-MiniLM-L6-v2": minilm(), "SmolLM2-135M-Instruct": smollm2()}
    told = {"made_by": "transformers in float64; tests/goldens/make_samples.py", "samples": samples}
    TARGET.write_text(json.dumps(told, indent=1) + "\n")
