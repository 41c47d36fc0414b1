"""Vocabularies for the tests: a tiny one made here, and the real one of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bascule.base.folders import models_folder
from bascule.text.language import LanguageTokenizer
from bascule.text.tokenizer_native import NativeTokenizer
from bascule.text.vocabulary import BYTE_OF, read_vocabulary
from bascule.weights.gguf import GgufHeader, parse_gguf
from tests.text.chats import CONTROL

MODEL = "SmolLM2-135M-Instruct"
# Enough for all that stands before this model's weights.
HEADER_NBYTES = 4 << 20


def tiny(control: Sequence[str] = CONTROL, **changes: Any) -> dict[str, Any]:
    """Metadata with all bytes, a few merges and control tokens; `pre=...` and such replace keys."""
    merges = ("h e", "l l", "he ll", "hell o", "Ġ hello", "1 2", "Ã ©")
    normal = [*BYTE_OF, *(merge.replace(" ", "") for merge in merges)]
    tokens = (*normal, *control, "<tool>", "[PAD1]")
    result = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "token_type": [1] * len(normal) + [3] * len(control) + [4, 5],
        "merges": merges,
        "bos_token_id": tokens.index("<s>") if "<s>" in tokens else None,
        "eos_token_id": tokens.index("</s>") if "</s>" in tokens else None,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in result.items() if value is not None}


def tokenizer_of(metadata: Mapping[str, object]) -> LanguageTokenizer:
    vocabulary = read_vocabulary(metadata, "model.gguf")
    plain = NativeTokenizer.from_json(vocabulary.tokenizer_json(), None)
    return LanguageTokenizer(vocabulary, plain)


def real_file() -> Path:
    """The model that the set-up has fetched."""
    return min((models_folder() / MODEL).glob("*.gguf"))


def real_metadata() -> Mapping[str, object]:
    """What its file says of itself."""
    path = real_file()
    with path.open("rb") as file:
        header = parse_gguf(file.read(HEADER_NBYTES), path.stat().st_size, path.name)
    assert isinstance(header, GgufHeader)
    return header.metadata
