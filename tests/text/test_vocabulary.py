"""Metadata that an enemy wrote."""

from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bascule.errors import BasculeError, ModelFileError, UnsupportedModelError
from bascule.text.language import LanguageTokenizer
from bascule.text.tokenizer_native import NativeTokenizer
from bascule.text.vocabulary import MAX_CONTROL, read_vocabulary
from tests.text.vocabularies import tiny

TOKENS = tiny()["tokenizer.ggml.tokens"]
KINDS = tiny()["tokenizer.ggml.token_type"]
N = len(TOKENS)

HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"model": 3}, "model: expected a string"),
    ({"tokens": "abc"}, "tokens: expected a list of strings"),
    ({"tokens": ()}, "tokens: expected 1 to"),
    ({"tokens": (*TOKENS[:-1], 7)}, "tokens: expected a list of strings"),
    ({"tokens": (*TOKENS[:-1], TOKENS[0])}, "each token once"),
    ({"tokens": (*TOKENS[:-1], "x" * 5000)}, "at most 4,096 characters"),
    ({"tokens": TOKENS[:-1]}, f"token_type: expected {N - 1:,} numbers"),
    ({"token_type": [*KINDS, 1]}, f"token_type: expected {N:,} numbers"),
    ({"token_type": "1" * N}, "token_type: expected a list of numbers"),
    ({"token_type": [9, *KINDS[1:]]}, "numbers from 1 to 5"),
    ({"token_type": [True, *KINDS[1:]]}, "numbers from 1 to 5"),
    ({"token_type": [1.0, *KINDS[1:]]}, "numbers from 1 to 5"),
    ({"token_type": [3, *KINDS[1:]]}, "control tokens of 2 to 128"),
    ({"tokens": (*TOKENS[:-2], "", TOKENS[-1])}, "token of the users"),
    ({"merges": ("he",)}, "merges, number 0: expected two tokens"),
    ({"merges": (" h",)}, "merges, number 0"),
    ({"merges": ("h e", "h  e")}, "merges, number 1"),
    ({"merges": ("h e", "z z")}, "merges, number 1"),
    ({"merges": ("h e", "h e")}, "each merge once"),
    ({"merges": ("<|im_ end|>",)}, "merges, number 0"),
    ({"merges": 5}, "merges: expected a list of strings"),
    ({"bos_token_id": N}, f"a number from 0 to {N - 1:,}"),
    ({"eos_token_id": -1}, f"a number from 0 to {N - 1:,}"),
    ({"eos_token_id": "1"}, "eos_token_id: expected a number"),
    ({"eot_token_id": True}, "eot_token_id: expected a number"),
    ({"add_bos_token": 1}, "add_bos_token: expected a boolean"),
]


@pytest.mark.parametrize(("changes", "told"), HOSTILE, ids=[told for _, told in HOSTILE])
def test_unsound_metadata_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelFileError, match=told) as caught:
        read_vocabulary(tiny(**changes), "model.gguf")
    assert caught.value.file == "model.gguf"


@pytest.mark.parametrize("key", ["model", "tokens", "token_type", "merges"])
def test_what_must_be_there_is_missed(key: str) -> None:
    metadata = tiny()
    del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(ModelFileError, match=f"{key}: expected .*, found none"):
        read_vocabulary(metadata, "model.gguf")


def test_other_kinds_of_tokenizer_are_named() -> None:
    with pytest.raises(
        UnsupportedModelError, match="kind 't5', and Bascule knows 'gpt2' and 'llama'"
    ):
        read_vocabulary(tiny(model="t5"), "m")
    with pytest.raises(UnsupportedModelError, match=r"split as 'deepseek-llm', .* smollm"):
        read_vocabulary(tiny(pre="deepseek-llm"), "m")


def test_more_control_tokens_than_any_model_has() -> None:
    control = [f"<{index}>" for index in range(MAX_CONTROL + 1)]
    with pytest.raises(ModelFileError, match="at most 16,384 of control"):
        read_vocabulary(tiny(control), "m")


def test_a_chat_template_of_another_type() -> None:
    with pytest.raises(ModelFileError, match="chat_template: expected a string"):
        read_vocabulary({**tiny(), "tokenizer.chat_template": 5}, "m")


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 300),
    st.text(max_size=3),
    st.sampled_from([TOKENS, TOKENS[:-1], KINDS, array("i", KINDS), (), ("h e",), [[]], (("a",),)]),
)
keys = ("model", "pre", "tokens", "token_type", "merges", "bos_token_id", "add_bos_token")


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(keys), values))
def test_any_metadata_gives_a_tokenizer_or_an_error(changes: dict[str, Any]) -> None:
    try:
        vocabulary = read_vocabulary(tiny(**changes), "m.gguf")
    except BasculeError:
        return
    plain = NativeTokenizer.from_json(vocabulary.tokenizer_json(), None)
    assert LanguageTokenizer(vocabulary, plain).encode("hello", special=True)
