"""The tokenizer of a language model: ids of the makers' own pipeline, on both sides."""

from __future__ import annotations

import random
from functools import cache

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from bascule.errors import InputError
from bascule.text import make_tokenizer
from bascule.text.language import LanguageTokenizer, open_text_tokenizer
from bascule.text.pretokenizers import PRETOKENIZERS
from bascule.text.vocabulary import read_vocabulary
from tests.goldens import text_goldens
from tests.text.chats import CONTROL
from tests.text.page_half import NodeTokenizer
from tests.text.strings import random_text
from tests.text.vocabularies import real_metadata, tiny, tokenizer_of


@cache
def real() -> LanguageTokenizer:
    return tokenizer_of(real_metadata())


def fresh_texts(count: int) -> list[str]:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    return [random_text(source) for _ in range(count)]


def test_ids_are_the_golden_ones() -> None:
    result = text_goldens()
    for special in (False, True):
        ids = result["special" if special else "plain"]
        for text, expected in zip(result["texts"], ids, strict=True):
            assert real().encode(text, special=special) == expected, text


def test_ids_of_fresh_texts_are_those_of_the_makers_pipeline() -> None:
    vocabulary = real().vocabulary
    merges = [tuple(merge.split(" ")) for merge in vocabulary.merges]
    ids = {text: index for index, text in enumerate(vocabulary.tokens)}
    makers = Tokenizer(models.BPE(ids, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    makers.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    for text in fresh_texts(2000):
        assert real().encode(text, special=False) == makers.encode(text).ids, text


def test_the_page_has_the_same_ids() -> None:
    texts = [*text_goldens()["texts"], *fresh_texts(1500)]
    page = LanguageTokenizer(real().vocabulary, NodeTokenizer(real().vocabulary.tokenizer_json()))
    parts: list[str | int] = []
    for text in texts:
        parts += [*real().split(text), 0]
    assert page.encode_parts(parts) == real().encode_parts(parts)
    assert page.encode_parts([*texts]) == real().encode_parts([*texts])


def test_bytes_without_a_token_are_dropped_before_words_are_merged() -> None:
    known = set(real().vocabulary.tokens)
    # GPT-2's vocabulary has bytes as characters: those up to 32 come after the first 256.
    unknown = [chr(code) for code in range(33) if chr(256 + code) not in known]
    assert len(unknown) > 5
    texts = [text.replace("#", each) for each in unknown for text in ("a>#' b", "#", "x#y", "##a#")]
    page = LanguageTokenizer(real().vocabulary, NodeTokenizer(real().vocabulary.tokenizer_json()))
    assert page.encode_parts([*texts]) == real().encode_parts([*texts])


@pytest.mark.parametrize("pre", PRETOKENIZERS)
def test_the_page_cuts_words_the_same(pre: str) -> None:
    vocabulary = read_vocabulary(tiny(pre=pre), "m.gguf")
    native = tokenizer_of(tiny(pre=pre))
    page = LanguageTokenizer(vocabulary, NodeTokenizer(vocabulary.tokenizer_json()))
    texts = [*fresh_texts(300), "hello  hello12 1212\n\n hello"]
    assert page.encode_parts(texts) == native.encode_parts(texts)


# As their makers wrote them; ours has them in the words of every browser.
MAKERS = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@pytest.mark.parametrize("name", MAKERS)
def test_words_are_cut_as_the_makers_wrote_it(name: str) -> None:
    from tokenizers import Regex

    def cut(expression: str) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Split(Regex(expression), "isolated")

    (ours,) = PRETOKENIZERS[name].expressions
    for text in fresh_texts(1000):
        expected = cut(MAKERS[name]).pre_tokenize_str(text)
        assert cut(ours).pre_tokenize_str(text) == expected, text


def test_whole_words_come_before_merges() -> None:
    """Llama 3's rule: a word that is a token needs no merges that lead to it."""
    metadata = tiny()
    tokens = list(metadata["tokenizer.ggml.tokens"])
    tokens[tokens.index("hello")] = "helix"
    merges = tuple(m for m in metadata["tokenizer.ggml.merges"] if "hell" not in m)
    changed = {"tokens": tuple(tokens), "merges": (*merges, "l i") if "li" in tokens else merges}
    assert len(tokenizer_of(tiny(**changed)).encode("helix", special=False)) > 1
    whole = tokenizer_of(tiny(**changed, pre="llama-bpe")).encode("helix", special=False)
    assert whole == [tokens.index("helix")]


def test_control_tokens_are_parsed_only_where_that_is_asked() -> None:
    tokenizer = tokenizer_of(tiny())
    end = tokenizer.vocabulary.control["<|im_end|>"]
    assert tokenizer.encode("<|im_end|>", special=True) == [end]
    plain = tokenizer.encode("<|im_end|>", special=False)
    assert len(plain) == 10
    assert tokenizer.decode_bytes(plain) == b"<|im_end|>"
    assert tokenizer.decode_bytes([end]) == b""
    assert tokenizer.decode_bytes([end], skip_special=False) == b"<|im_end|>"


def test_user_defined_tokens_are_parsed_everywhere() -> None:
    tokenizer = tokenizer_of(tiny())
    tool = tokenizer.vocabulary.user_defined["<tool>"]
    for special in (False, True):
        assert tokenizer.encode("a<tool>", special=special)[-1] == tool
    assert tokenizer.decode_bytes([tool]) == b"<tool>"


def test_the_longest_control_token_wins() -> None:
    tokenizer = tokenizer_of(tiny((*CONTROL, "<|end|><|end|>", "<|end")))
    control = tokenizer.vocabulary.control
    result = tokenizer.encode("<|end|><|end|><|end|><|end", special=True)
    assert result == [control["<|end|><|end|>"], control["<|end|>"], control["<|end"]]


def test_long_texts_are_not_cut() -> None:
    assert len(tokenizer_of(tiny()).encode("x y" * 50_000, special=False)) == 150_000


async def test_without_a_limit_nothing_is_cut_and_with_one_it_is() -> None:
    data = read_vocabulary(tiny(), "m.gguf").tokenizer_json()
    text = "a b c d"
    assert len((await make_tokenizer(data, None)).encode([text])[0]) == 7
    assert len((await make_tokenizer(data, 3)).encode([text])[0]) == 3


async def test_what_is_no_text_or_no_token_is_told() -> None:
    tokenizer = await open_text_tokenizer(read_vocabulary(tiny(), "m.gguf"))
    with pytest.raises(InputError, match="UTF-8"):
        tokenizer.encode("a\ud83d", special=False)
    for token in (-1, tokenizer.n_tokens):
        with pytest.raises(InputError, match="token id"):
            tokenizer.decode_bytes([token])


def test_what_ends_a_turn() -> None:
    vocabulary = real().vocabulary
    assert {vocabulary.tokens[i] for i in vocabulary.ends} == {"<|im_end|>", "<|endoftext|>"}
    assert vocabulary.text(vocabulary.bos) == "<|im_start|>"
    assert not vocabulary.adds_bos
