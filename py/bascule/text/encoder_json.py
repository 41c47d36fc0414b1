"""Changes of sentence-transformers to an encoder's tokenizer.json."""

from __future__ import annotations

import json
from typing import Any

from bascule.base.json_object import TOKENIZER as TOKENIZER_LIMITS
from bascule.base.json_object import json_object

_FILE = "tokenizer.json"


def lowercased(tokenizer_json: bytes) -> bytes:
    """Make a tokenizer lowercase its texts first, like sentence-transformers' do_lower_case.

    One that already does so is unchanged.
    """
    result = json_object(tokenizer_json, _FILE, TOKENIZER_LIMITS)
    normalizer = result.get("normalizer")
    if _lowercases(normalizer):
        return tokenizer_json
    steps: list[Any] = []
    if isinstance(normalizer, dict):
        inner = normalizer.get("normalizers")
        listed = normalizer.get("type") == "Sequence" and isinstance(inner, list)
        steps = inner if listed and isinstance(inner, list) else [normalizer]
    result["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, *steps]}
    return json.dumps(result, ensure_ascii=False).encode()


def _lowercases(normalizer: Any) -> bool:
    if not isinstance(normalizer, dict):
        return False
    if normalizer.get("type") == "Sequence":
        inner = normalizer.get("normalizers")
        return isinstance(inner, list) and any(map(_lowercases, inner))
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True
