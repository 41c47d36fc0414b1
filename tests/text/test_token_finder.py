"""Tokens in texts: as a regular expression finds them, and soon however many they are."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from bascule.text.language import LanguageTokenizer
from bascule.text.marks import Marker
from bascule.text.token_finder import TokenFinder, folded
from tests.text.vocabularies import tiny, tokenizer_of

few = st.text("ab<|", min_size=1, max_size=5)


@given(st.sets(few, max_size=8), st.text("ab<|", max_size=30))
def test_it_finds_what_a_regular_expression_finds(tokens: set[str], text: str) -> None:
    longest_first = sorted(tokens, key=len, reverse=True)
    look = re.compile(f"(?=({'|'.join(map(re.escape, longest_first))}))") if tokens else None
    expected = [] if look is None else [(m.start(), m[1]) for m in look.finditer(text)]
    assert list(TokenFinder(tokens).all_in(text)) == expected


@given(st.sets(few, max_size=8), few)
def test_beginnings_of_longer_tokens(tokens: set[str], text: str) -> None:
    expected = any(token.startswith(text) and token != text for token in tokens)
    assert TokenFinder(tokens).is_prefix_of_longer(text) == expected


@given(st.text())
def test_folding_goes_character_by_character(text: str) -> None:
    assert folded(text) == "".join(map(folded, text))
    assert len(folded(text)) == len(text)


def test_case_is_folded_as_regular_expressions_do() -> None:
    for character in "iIıİsSſkK\u212aσΣς":
        for other in "iIıİsSſkK\u212aσΣς":
            if re.fullmatch(re.escape(character), other, re.IGNORECASE):
                assert folded(character) == folded(other)


class Counting(str):
    """A text that counts how often a part of it is compared."""

    n_compared = 0
    __slots__ = ()

    def startswith(self, *args: object) -> bool:  # type: ignore[override]
        Counting.n_compared += 1
        return super().startswith(*args)  # type: ignore[arg-type]

    def __getitem__(self, key: object) -> Counting:  # type: ignore[override]
        return Counting(super().__getitem__(key))  # type: ignore[index]


def test_as_many_tokens_as_may_be_cost_no_more_than_a_few() -> None:
    tokens = [f"<|{number:0124}|>" for number in range(1 << 14)]
    text = "<|" * 2000
    counts: list[int] = []
    for known in (tokens[:16], tokens):
        Counting.n_compared = 0
        assert list(TokenFinder(known).all_in(Counting(text))) == []
        counts.append(Counting.n_compared)
    assert 0 < counts[1] <= counts[0] + 10 <= 2010


def test_a_vocabulary_full_of_control_tokens() -> None:
    plain = tokenizer_of(tiny())
    control = {f"<|{number:0124}|>": number for number in range(1 << 14)}
    result = LanguageTokenizer(replace(plain.vocabulary, control=control), plain._plain)
    text = "a " + "<|" * 3000 + f"<|{77:0124}|> b"
    assert result.split(text) == ["a " + "<|" * 3000, 77, " b"]
    marked = Marker(control).mark(text, "#")
    assert result.split(marked) == [marked]
    assert marked.replace("#", "") == text
