"""Makes modules.npz: what sentence-transformers itself gives for each folder of module_folders.py.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.13.0 \\
        transformers==5.23.0 sentence-transformers==6.2.0
    /tmp/goldens/bin/python tests/goldens/make_module_goldens.py

Weights and arithmetic are float64, one text a batch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.module_folders import GOLDENS, RIGHT, TEXTS, Case, build


def embed(case: Case) -> np.ndarray:
    """Every text's embedding, one a batch, in float64."""
    with tempfile.TemporaryDirectory() as home:
        build(case, Path(home) / "m")
        model = SentenceTransformer(str(Path(home) / "m"), device="cpu").double()
        rows = [model.encode([text], **case.call) for text in TEXTS]
    return np.concatenate(rows)


if __name__ == "__main__":
    np.savez_compressed(GOLDENS, **{case.name: embed(case).astype(np.float32) for case in RIGHT})
