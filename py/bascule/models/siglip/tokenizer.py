"""What SigLIP does to a text before its SentencePiece tokenizer."""

from __future__ import annotations

import json

from bascule.base.json_object import TOKENIZER, json_object
from bascule.errors import UnsupportedModelError
from bascule.text.pretokenizers import ASCII_PUNCTUATION

SPIECE_HINT = (
    "Convert it in Python: transformers' "
    "T5Tokenizer.from_pretrained(FOLDER, extra_ids=0).save_pretrained(FOLDER)."
)


def canonicalized(tokenizer_json: bytes, place: str) -> bytes:
    """Make a tokenizer lowercase its texts, drop ASCII punctuation and join spaces first.

    One that already does so gives the same ids. A leading space does not change a text's ids, as in
    SigLIP's training code; transformers has one id more. UnsupportedModelError for anything but a
    Unigram: SigLIP 2's checkpoints have Gemma's BPE.
    """
    result = json_object(tokenizer_json, place, TOKENIZER)
    model, normalizer = result.get("model"), result.get("normalizer")
    kind = model.get("type") if isinstance(model, dict) else None
    if kind != "Unigram":
        problem = f"its tokenizer is of type {str(kind)[:40]!r}, and SigLIP's is a Unigram"
        hint = "SigLIP 2 and its multilingual tokenizer do not run."
        raise UnsupportedModelError(place, problem, hint=hint)
    blanks = r"[\s\x1c-\x1f]+"  # what Python's \s takes
    steps: list[object] = [
        {"type": "Lowercase"},
        {"type": "Replace", "pattern": {"Regex": ASCII_PUNCTUATION}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": blanks}, "content": " "},
        {"type": "Strip", "strip_left": True, "strip_right": True},
    ]
    result["normalizer"] = {
        "type": "Sequence",
        "normalizers": [*steps, *([] if normalizer is None else [normalizer])],
    }
    return json.dumps(result, ensure_ascii=False).encode()
