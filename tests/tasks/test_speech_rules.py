"""Which tokens may follow, case by case."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bascule.errors import InputError, ModelFileError
from bascule.tasks.speech_rules import allowed_logits
from bascule.tasks.speech_tokens import SpeechTokens, read_speech_tokens
from bascule.text.folder_vocabulary import TokenizerFiles, read_folder_vocabulary
from tests.speech_folders import CONTROL, END, FIRST, N_ROWS, START, tokenizer


def tokens(**settings: object) -> SpeechTokens:
    files = TokenizerFiles("m", json.dumps(tokenizer()).encode(), bare=True)
    return read_speech_tokens(read_folder_vocabulary(files), N_ROWS, settings, "m")


TOKENS = tokens(is_multilingual=True, suppress_tokens=[7], begin_suppress_tokens=[32])


def allowed(*ids: int, timestamps: bool = True, text: float = 5.0) -> set[int]:
    """What may follow where all text is as likely, and likelier than times."""
    logits = np.zeros(N_ROWS, np.float32)
    logits[:FIRST] = text
    y = allowed_logits(logits, ids, TOKENS, timestamps=timestamps)
    return {int(token) for token in np.flatnonzero(np.isfinite(y))}


CONTROLS = set(range(START, FIRST))
LANGUAGES = set(TOKENS.languages.values())
TEXT = set(range(END)) - {7}


def test_a_window_begins_with_a_time_of_at_most_1_s() -> None:
    assert allowed() == set(range(FIRST, N_ROWS))


def test_without_timestamps_text_begins() -> None:
    assert allowed(timestamps=False) == (TEXT - {32}) | LANGUAGES
    assert allowed(65, timestamps=False) == TEXT | LANGUAGES | {END}


def test_text_follows_a_beginning() -> None:
    assert allowed(FIRST + 3) == TEXT | LANGUAGES | {END}


def test_text_or_a_later_time_follows_text() -> None:
    assert allowed(FIRST + 3, 65) == TEXT | LANGUAGES | {END} | set(range(FIRST + 4, N_ROWS))


def test_the_same_time_or_the_end_follows_an_end() -> None:
    result = allowed(FIRST + 3, 65, FIRST + 9)
    assert result == {END, *LANGUAGES, *range(FIRST + 9, N_ROWS)}


def test_a_time_is_forced_where_all_together_are_likelier_than_any_text() -> None:
    # 38 times of weight 1 each against a text of weight e^3 = 20.
    assert allowed(FIRST + 3, 65, text=3.0) == set(range(FIRST + 4, N_ROWS))
    assert 65 in allowed(FIRST + 3, 65, text=4.0)


def test_prompts() -> None:
    sot, de, translate = (
        END + CONTROL.index(f"<|{n}|>") for n in ("startoftranscript", "de", "translate")
    )
    assert TOKENS.prompt("de", "translate", timestamps=True) == [sot, de, translate]
    english = tokens(is_multilingual=False)
    assert english.prompt("en", "transcribe", timestamps=False) == [sot, FIRST - 1]
    assert tokens().languages == {}  # so few rows


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"suppress_tokens": "all"}, "suppress_tokens is not a list"),
        ({"suppress_ids_begin": [N_ROWS]}, "suppress_ids_begin is not a list"),
        ({"suppress_tokens": [True]}, "suppress_tokens is not a list"),
    ],
    ids=str,
)
def test_settings_that_lie_are_rejected(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        tokens(**settings)


def test_a_tokenizer_of_another_kind_is_rejected() -> None:
    result = tokenizer()
    result["added_tokens"] = result["added_tokens"][:3]
    files = TokenizerFiles("m", json.dumps(result).encode(), bare=True)
    with pytest.raises(
        ModelFileError, match="lacks the token '<|notimestamps|>'".replace("|", r"\|")
    ):
        read_speech_tokens(read_folder_vocabulary(files), N_ROWS, {}, "m")
    files = TokenizerFiles("m", json.dumps(tokenizer()).encode(), bare=True)
    with pytest.raises(ModelFileError, match="do not fit 266 embeddings"):
        read_speech_tokens(read_folder_vocabulary(files), 266, {}, "m")


def test_languages_and_tasks_are_checked() -> None:
    english = tokens(is_multilingual=False)
    for check, value, result in (
        (TOKENS.check_language, "german", "one of 'en', 'de', 'fr'"),
        (TOKENS.check_task, "summarize", "one of 'transcribe', 'translate'"),
        (english.check_language, "de", "English alone"),
        (english.check_task, "translate", "English alone"),
    ):
        with pytest.raises(InputError, match=result):
            check(value)
    assert english.check_language(None) == "en"
    assert TOKENS.check_language(None) is None
