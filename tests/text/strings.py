"""Random texts of the sorts that tokenizers have gone wrong on. Only the standard library."""

from __future__ import annotations

import random
import unicodedata

PIECES = (
    *(
        "the",
        " cat",
        "Ein",
        " schönes",
        "naïve",
        "it's",
        "I'LL",
        "we'vE",
        "'ſ",
        "don't",
        "CamelCase",
    ),
    *("日本語", "中文字符", "한국어", "العربية", "עברית", "क्षत्रिय", "ไทย", "Ελληνικά", "русский"),
    *("0", "7", "42", "123", "1234567", "3.14", "½", "Ⅷ", "٣", "²", "1e-9"),
    *(" ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", " \n ", "\u00a0", "\u3000", "\u2028", "\x85"),
    *(
        "🚢",
        "👩‍👩‍👧‍👦",
        "🇪🇺",
        "❤️",
        "\u0301",
        "é",
        "e\u0301",
        "\ufeff",
        "\u200b",
        "\u200d",
        "\ufffd",
    ),
    *("def f(x):\n    return x", "if (a<=b) {", "};", "//", "->", "...", "!!!", "$1,0", "#include"),
    *(
        "<|im_end|>",
        "<|im_start|>",
        "<|endoftext|>",
        "<|im_",
        "end|>",
        "[INST]",
        "</s>",
        "<repo_name>",
    ),
    *("\x00", "\x7f", "\\u0041", '"', "'", "Ġ", "Ċ", "ÃĤ", "𝓐", "𠀀"),
)


def random_text(source: random.Random, maximum: int = 24) -> str:
    """Pieces side by side, and now and then any character at all."""
    parts = source.choices(PIECES, k=source.randint(0, maximum))
    if source.random() < 0.3:
        parts.insert(source.randint(0, len(parts)), any_character(source))
    return "".join(parts)


def any_character(source: random.Random) -> str:
    """One that has been the same letter, digit or sign in every version of Unicode since 3.2.

    Of a newer one, or one that is still free, engines of different years think differently.
    """
    while True:
        character = chr(source.randrange(0x20000))
        kind = unicodedata.ucd_3_2_0.category(character)
        if kind not in ("Cn", "Cs") and kind == unicodedata.category(character):
            return character
