"""Text that comes in pieces: whole characters only, and nothing of a stop string."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bascule.errors import InputError
from bascule.text.language import LanguageTokenizer
from bascule.text.streaming import Detokeniser, StopStrings
from tests.text.vocabularies import real_metadata, tiny, tokenizer_of


@cache
def real() -> LanguageTokenizer:
    return tokenizer_of(real_metadata())


@cache
def lost_bytes() -> frozenset[int]:
    """Bytes that SmolLM2's makers gave no token: five control characters, and no letter."""
    tokenizer = tokenizer_of(tiny())
    tokens = set(real().vocabulary.tokens)
    single = [tokenizer.vocabulary.tokens[index] for index in range(256)]
    return frozenset(tokenizer.decode_bytes([i])[0] for i in range(256) if single[i] not in tokens)


def streamed(tokenizer: LanguageTokenizer, ids: list[int]) -> list[str]:
    stream = Detokeniser(tokenizer)
    return [*(stream.push(token) for token in ids), stream.flush()]


@settings(deadline=None, max_examples=400)
@given(st.text(max_size=40))
def test_any_text_comes_back_in_whole_characters(text: str) -> None:
    tokenizer = tokenizer_of(tiny())
    pieces = streamed(tokenizer, tokenizer.encode(text, special=False))
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=400)
@given(st.text(max_size=40))
def test_any_text_that_the_real_model_knows_comes_back(text: str) -> None:
    text = "".join(c for c in text if not lost_bytes() & set(c.encode()))
    pieces = streamed(real(), real().encode(text, special=False))
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


def test_which_characters_the_real_model_cannot_say() -> None:
    lost = lost_bytes()
    assert {chr(byte) for byte in lost if byte < 128} == set("\x04\x06\x13\x14\x16\x1d")
    assert not {0xE2, 0xF0, 0xF3} & lost


def test_a_character_of_four_tokens_comes_at_its_last() -> None:
    tokenizer = tokenizer_of(tiny())
    ids = tokenizer.encode("a🚢", special=False)
    assert streamed(tokenizer, ids) == ["a", "", "", "", "🚢", ""]
    assert streamed(tokenizer, ids[:3]) == ["a", "", "", "\ufffd"]


@given(st.lists(st.integers(0, 255), max_size=12))
def test_any_bytes_read_as_python_reads_them(ids: list[int]) -> None:
    tokenizer = tokenizer_of(tiny())
    expected = tokenizer.decode_bytes(ids).decode(errors="replace")
    assert "".join(streamed(tokenizer, ids)) == expected


def test_control_tokens_are_silent_unless_asked_for() -> None:
    tokenizer = tokenizer_of(tiny())
    end = tokenizer.vocabulary.control["<|im_end|>"]
    assert Detokeniser(tokenizer).push(end) == ""
    assert Detokeniser(tokenizer, skip_special=False).push(end) == "<|im_end|>"


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    stopper = StopStrings(stops)
    result = "".join(stopper.push(piece) for piece in pieces)
    return result + stopper.flush(), stopper.stopped


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        ([], ["a", "b"], ("ab", None)),
        (["\n\n"], ["a\n", "\nb"], ("a", "\n\n")),
        (["END"], ["xE", "N", "x", "EN"], ("xENxEN", None)),
        (["END"], ["xE", "EN", "Dy"], ("xE", "END")),
        (["aab"], ["aaa", "ab"], ("aa", "aab")),
        (["abc", "b"], ["abc"], ("a", "b")),
        (["abc", "c"], ["xab", "c"], ("x", "abc")),
        (["bc", "abcd"], ["abcd"], ("a", "bc")),
        (["x", "x"], ["ax", "x"], ("a", "x")),
        (["🚢"], ["a", "🚢b"], ("a", "🚢")),
    ],
)
def test_stop_strings(
    stops: list[str], pieces: list[str], expected: tuple[str, str | None]
) -> None:
    assert run(stops, pieces) == expected


few = st.text("abc", max_size=14)


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=3), few, st.data())
def test_where_pieces_are_cut_changes_nothing(stops: list[str], text: str, data: st.DataObject):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    result, stopped = run(stops, pieces)
    assert (result, stopped) == run(stops, list(text)) == run(stops, [text])
    assert not any(stop in result for stop in stops)
    assert text.startswith(result + (stopped or ""))
    assert stopped or result == text


def test_text_is_held_back_no_longer_than_it_must() -> None:
    stopper = StopStrings(["<end>"])
    assert [stopper.push(piece) for piece in ("a<e", "x", "<end", "y")] == ["a", "<ex", "", "<endy"]


@pytest.mark.parametrize("stops", [[""], ["a", ""], "", [1]])
def test_stops_that_are_none(stops: list[str]) -> None:
    with pytest.raises(InputError, match="stop"):
        StopStrings(stops)
