"""Goldens by an independent implementation; see make_goldens.py."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
TINY_BERT = HERE / "tiny-bert"


@dataclass(frozen=True)
class Golden:
    """Texts, their token ids, and their embeddings in float64."""

    texts: list[str]
    ids: list[list[int]]
    embeddings: np.ndarray[Any, np.dtype[np.float64]]


def golden(name: str) -> Golden:
    """ "minilm" or "tiny-bert"."""
    result = json.loads((HERE / f"{name}.json").read_text())
    return Golden(result["texts"], result["ids"], np.load(HERE / f"{name}.npy"))


def awkward() -> tuple[list[str], list[list[int]]]:
    """Texts that tokenizers stumble over, and their ids."""
    result = json.loads((HERE / "tokenizer.json").read_text())
    return result["texts"], result["ids"]


def cosines(found: Any, expected: Any) -> Any:
    """Cosine of each row, in float64; NaN where a row holds one."""
    a, b = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def text_goldens() -> dict[str, Any]:
    """Texts with their ids, plain and special, and rendered chats; see make_text_goldens.py."""
    return json.loads((HERE / "text.json").read_text())
