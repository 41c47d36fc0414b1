"""SentencePiece's tokenizers, with spaces as "▁", held to their makers' library on both sides."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from math import nan
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
)

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from bascule.text.language import LanguageTokenizer
from bascule.text.streaming import Detokeniser
from bascule.text.tokenizer_native import NativeTokenizer
from bascule.text.vocabulary import read_vocabulary
from tests.goldens.families import space_words
from tests.text.page_half import NodeTokenizer
from tests.text.strings import random_text

CONTROLS = ("<unk>", "<s>", "</s>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
TEXTS = ("The ship passes.", "", " ", "  two", "a  b ", "\n\nÜ 🚢▁x", "<0x41> <unk>", "the▁the")


def unigram(to_bytes: bool, *, split: bool) -> Tokenizer:
    """Unigram pieces with a decoder of either kind."""
    words = ["▁the", "▁", *"abcdehiost", "he", "▁she", "is", "▁th"]
    pieces = [*CONTROLS, *(BYTES if to_bytes else ()), *words]
    vocab = [(piece, -1.0 - i / 7) for i, piece in enumerate(pieces)]
    made = Tokenizer(models.Unigram(vocab, 0, to_bytes))
    made.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    made.decoder = decoders.Metaspace()
    if to_bytes:
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    made.add_special_tokens(list(CONTROLS))
    return made


def phi_3() -> Tokenizer:
    """Tokens of control and of users that take the white space at their side, as Phi-3's do."""
    made = space_words(*CONTROLS, before="always")
    flags = {"normalized": False, "special": True}
    made.add_special_tokens([AddedToken("<|user|>", rstrip=True, **flags)])
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, **flags)])
    made.add_tokens([AddedToken("</tool>", rstrip=True, normalized=False)])
    made.add_tokens([AddedToken("<both>", lstrip=True, rstrip=True, normalized=False)])
    return made


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "gemma": partial(space_words, *CONTROLS),
    "llama 2": partial(space_words, *CONTROLS, before="always"),
    "mistral": partial(space_words, *CONTROLS, before="first"),
    "phi-3": phi_3,
    "unigram of words": partial(unigram, False, split=True),
    "unigram of texts": partial(unigram, False, split=False),
    "unigram with bytes": partial(unigram, True, split=True),
}


def tokenizer_of(makers: Tokenizer, **config: Any) -> LanguageTokenizer:
    files = TokenizerFiles("m", makers.to_str().encode(), json.dumps(config).encode())
    vocabulary = read_folder_vocabulary(files)
    return LanguageTokenizer(
        vocabulary, NativeTokenizer.from_json(vocabulary.tokenizer_json(), None)
    )


def streamed(tokenizer: LanguageTokenizer, ids: list[int], *, start: bool) -> str:
    stream = Detokeniser(tokenizer, start=start)
    return "".join([*map(stream.push, ids), stream.flush()])


@pytest.mark.parametrize("name", MAKERS)
def test_ids_and_texts_are_those_of_the_makers_library(name: str) -> None:
    makers = MAKERS[name]()
    native = tokenizer_of(makers)
    page = LanguageTokenizer(native.vocabulary, NodeTokenizer(native.vocabulary.tokenizer_json()))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    texts = [*TEXTS, *(random_text(source) for _ in range(300))]
    texts += [text + "</s>" + text for text in texts[:60]]
    for text in texts:
        expected = makers.encode(text, add_special_tokens=False).ids
        if "<unk>" not in text and "<0x" not in text:
            assert native.encode(text, special=True) == expected, text
            assert streamed(native, expected, start=True) == makers.decode(expected)
        if not any(control in text for control in CONTROLS):
            assert native.encode(text, special=False) == native.encode(text, special=True)
    parts = [part for text in texts for part in (*native.split(text), 1)]
    assert page.encode_parts(parts) == native.encode_parts(parts)


WHITE = ["", " ", "\n", " \t ", "\u00a0", "\u2003\u3000", "\x1c", "\u200b", "\x85\v\f\r"]


def test_tokens_take_the_white_space_at_their_side() -> None:
    makers = phi_3()
    native = tokenizer_of(makers)
    tokens = ["<|user|>", "<mask>", "</tool>", "<both>", "</s>", "the", "", "a"]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    for _ in range(2000):
        text = "".join(source.choice(tokens) + source.choice(WHITE) for _ in range(6))
        expected = makers.encode(text, add_special_tokens=False).ids
        assert native.encode(text, special=True) == expected, text
    assert native.encode("<|user|>\n\n the", special=True) == makers.encode("<|user|>the").ids


@pytest.mark.parametrize("name", MAKERS)
def test_no_text_becomes_a_control_token(name: str) -> None:
    native = tokenizer_of(MAKERS[name]())
    made = native.encode("<s></s> <unk> 0 1 </s>", special=False)
    assert not {1, 2} & set(made)
    if native.vocabulary.pre.to_bytes:  # type: ignore[union-attr]
        assert 0 not in made


def test_a_text_that_goes_on_keeps_its_space() -> None:
    native = tokenizer_of(MAKERS["llama 2"]())
    ids = native.encode("the ship", special=False)
    assert native.vocabulary.tokens[ids[0]] == "▁the"
    assert streamed(native, ids, start=True) == "the ship"
    assert streamed(native, ids, start=False) == " the ship"
    gemma = tokenizer_of(MAKERS["gemma"]())
    assert streamed(gemma, gemma.encode(" the", special=False), start=True) == " the"


def test_a_character_of_four_bytes_comes_at_its_last() -> None:
    native = tokenizer_of(MAKERS["llama 2"]())
    stream = Detokeniser(native, start=True)
    ids = native.encode("a🚢", special=False)
    assert [stream.push(token) for token in ids] == ["", "a", "", "", "", "🚢"]


def test_tokens_of_users_are_cut_out_of_the_text_as_it_is() -> None:
    """Gemma has tokens for runs of line breaks, and for spaces as they are in tokens."""
    makers = space_words(*CONTROLS)
    users = ("\n\n", "<table>", "he ▁")
    makers.add_tokens([AddedToken(text, normalized=False) for text in users])
    native = tokenizer_of(makers)
    for text in ("a\n\n\nb", "the <table> the", "the  the he ▁x"):
        assert native.encode(text, special=True) == makers.encode(text).ids


def test_the_first_token_of_a_text() -> None:
    makers = MAKERS["mistral"]()
    makers.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    native = tokenizer_of(makers, bos_token="<s>", eos_token="</s>")
    vocabulary = native.vocabulary
    assert vocabulary.adds_bos
    assert vocabulary.bos is not None
    assert [1, *native.encode("the", special=True)] == makers.encode("the").ids
    # Behind a token that a text names itself no space is set.
    assert native.encode("<s>the", special=True) == makers.encode("<s>the").ids[1:]


def change(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(told: Any) -> None:
        for key in path[:-1]:
            told = told[int(key) if key.isdecimal() else key]
        told[int(path[-1]) if path[-1].isdecimal() else path[-1]] = to

    return apply


OTHERS: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("llama 2", change("normalizer", "normalizers", "0", "prepend", to="x"), "normalised by"),
    ("gemma", change("normalizer", to={"type": "Sequence", "normalizers": 3}), "no normalizers"),
    ("gemma", change("pre_tokenizer", "behavior", to="Isolated"), "words are cut by"),
    ("mistral", change("pre_tokenizer", "replacement", to="_"), "words are cut by"),
    ("mistral", change("pre_tokenizer", "prepend_scheme", to="last"), "prepend_scheme is 'last'"),
    ("gemma", change("decoder", to=None), "decodes by other rules"),
    ("gemma", change("model", "byte_fallback", to=False), "decodes by other rules"),
    ("llama 2", change("decoder", "decoders", "3", "stop", to=1), "decodes by other rules"),
    ("unigram of words", change("decoder", "replacement", to="_"), "decodes by other rules"),
    ("gemma", change("model", "dropout", to=0.1), "by chance"),
]
UNSOUND: list[tuple[str, Callable[[dict[str, Any]], None], str]] = [
    ("gemma", change("model", "vocab", "<0x00>", to="x"), "a token has the id x"),
    ("gemma", lambda told: told["model"]["vocab"].pop("<0x7F>"), "no token <0x7F>"),
    ("gemma", change("model", "byte_fallback", to=1), "byte_fallback is not a boolean"),
    ("gemma", change("model", "unk_token", to="<no>"), "unk_token is '<no>'"),
    ("gemma", change("model", "fuse_unk", to="x"), "fuse_unk is not a boolean"),
    ("unigram of words", change("model", "unk_id", to=10_000), "unk_id is 10000"),
    ("unigram of words", change("model", "unk_id", to=True), "unk_id is True"),
    ("unigram of words", change("model", "vocab", "5", to=["x"]), "is not a token with its score"),
    ("unigram of words", change("model", "vocab", "5", to=["x", nan]), "is not a token with its"),
    ("unigram of words", change("model", "vocab", to={}), "is not a token with its score"),
    ("unigram of words", change("model", "vocab", "5", to=["b", 1.0]), "a token occurs twice"),
]


@pytest.mark.parametrize(("name", "apply", "words"), OTHERS, ids=[row[2] for row in OTHERS])
def test_other_steps_are_named(
    name: str, apply: Callable[[dict[str, Any]], None], words: str
) -> None:
    result = json.loads(MAKERS[name]().to_str())
    apply(result)
    with pytest.raises(UnsupportedModelError, match=words):
        read_folder_vocabulary(TokenizerFiles("m", json.dumps(result).encode()))


@pytest.mark.parametrize(("name", "apply", "words"), UNSOUND, ids=[row[2] for row in UNSOUND])
def test_unsound_files_are_rejected(
    name: str, apply: Callable[[dict[str, Any]], None], words: str
) -> None:
    result = json.loads(MAKERS[name]().to_str())
    apply(result)
    with pytest.raises(ModelFileError, match=words):
        read_folder_vocabulary(TokenizerFiles("m", json.dumps(result).encode()))


def test_a_unigram_whose_unknown_characters_depend_on_their_neighbours() -> None:
    result = json.loads(MAKERS["unigram with bytes"]().to_str())
    result["model"]["vocab"].append(["xyz", -1.0])
    with pytest.raises(UnsupportedModelError, match="character 'x' is not a token of its own"):
        read_folder_vocabulary(TokenizerFiles("m", json.dumps(result).encode()))


def scored(**changes: Any) -> dict[str, Any]:
    """GGUF metadata of the same pieces as the "llama 2" of these tests."""
    output = json.loads(MAKERS["llama 2"]().to_str())
    tokens = tuple(sorted(output["model"]["vocab"], key=output["model"]["vocab"].get))
    order = {"".join(pair): rank for rank, pair in enumerate(output["model"]["merges"])}
    kinds = [2] + [3] * 2 + [6] * 256 + [1] * (len(tokens) - 259)
    result = {
        "model": "llama",
        "tokens": tokens,
        "scores": [-float(order.get(text, 1000)) for text in tokens],
        "token_type": kinds,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changes
    return {f"tokenizer.ggml.{key}": value for key, value in result.items() if value is not None}


def test_a_gguf_file_gives_the_ids_of_the_folder() -> None:
    vocabulary = read_vocabulary(scored(), "m.gguf")
    plain = NativeTokenizer.from_json(vocabulary.tokenizer_json(), None)
    file, folder = LanguageTokenizer(vocabulary, plain), tokenizer_of(MAKERS["llama 2"]())
    assert (vocabulary.bos, vocabulary.adds_bos, file.strips) == (1, True, True)
    for text in TEXTS:
        assert file.encode(text, special=False) == folder.encode(text, special=False)
    unprefixed = read_vocabulary(scored(add_space_prefix=False, add_bos_token=False), "m")
    plain = NativeTokenizer.from_json(unprefixed.tokenizer_json(), None)
    gemma = tokenizer_of(MAKERS["gemma"]())
    file = LanguageTokenizer(unprefixed, plain)
    assert (unprefixed.adds_bos, file.strips) == (False, False)
    assert file.encode("the  ship", special=False) == gemma.encode("the  ship", special=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"scores": None}, "scores: expected 310 numbers, found none"),
        ({"scores": [0.0]}, "scores: expected 310 numbers"),
        ({"scores": [nan] * 310}, "finite numbers"),
        ({"token_type": [7] * 310}, "numbers from 1 to 6"),
        ({"add_space_prefix": 3}, "add_space_prefix: expected a boolean"),
        ({"tokens": tuple(f"t{i}" for i in range(310))}, "one for each byte, found no <0x00>"),
    ],
)
def test_scored_tokens_that_are_unsound(changes: dict[str, Any], words: str) -> None:
    count = len(scored()["tokenizer.ggml.tokens"])
    assert count == 310
    with pytest.raises(ModelFileError, match=words):
        read_vocabulary(scored(**changes), "m")


def test_scored_tokens_are_not_cut_without_end() -> None:
    tokens = (*scored()["tokenizer.ggml.tokens"], "a" * 300)
    more = {"scores": [0.0] * 311, "token_type": [1] * 311}
    with pytest.raises(ModelFileError, match="at most 256 characters"):
        read_vocabulary(scored(tokens=tokens, **more), "m")
