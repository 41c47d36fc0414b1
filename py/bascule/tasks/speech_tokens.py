"""The control tokens of a speech model, and the tokens that it may not choose."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bascule.base.arguments import described, one_of
from bascule.errors import InputError, ModelFileError
from bascule.text.vocabulary import Vocabulary

TASKS = ("transcribe", "translate")
_LANGUAGE = re.compile(r"<\|([a-z]{2,3})\|>")
# Models with fewer tokens know only English, if no file says otherwise.
_MULTILINGUAL = 51865
# Names of one token in older and newer files.
_NO_SPEECH = ("<|nospeech|>", "<|nocaptions|>")
# Never text: what precedes it.
_PREFIX = ("<|startoftranscript|>", "<|startofprev|>", "<|startoflm|>")


@dataclass(frozen=True, slots=True)
class SpeechTokens:
    """Ids of control tokens. Ids from `timestamps` on are timestamps of 20 ms each.

    `languages` maps codes to ids and is empty for a model that knows only English. `never` are not
    chosen, `not_first` not as the first token of a window.
    """

    start: int
    end: int
    tasks: Mapping[str, int]
    no_speech: int | None
    no_timestamps: int
    languages: Mapping[str, int]
    never: tuple[int, ...]
    not_first: tuple[int, ...]

    @property
    def timestamps(self) -> int:
        """The id of 0 s."""
        return self.no_timestamps + 1

    def prompt(self, language: str, task: str, *, timestamps: bool) -> list[int]:
        """Return the ids that precede a window's text."""
        asked = [self.languages[language], self.tasks[task]] if self.languages else []
        return [self.start, *asked, *([] if timestamps else [self.no_timestamps])]

    def check_language(self, language: object) -> str | None:
        """Return a language's code, None if it is to be detected; InputError for an unknown one."""
        if not self.languages:
            if language in (None, "en"):
                return "en"
            raise InputError(
                "language", "'en': this model knows English alone", described(language)
            )
        return None if language is None else one_of("language", language, self.languages)

    def check_task(self, task: object) -> str:
        """Return the task; InputError for an unknown one, or one that the model cannot do."""
        result = one_of("task", task, TASKS)
        if result == "translate" and not self.languages:
            hint = "Load a multilingual model, such as whisper-base."
            expected = "'transcribe': this model knows English alone"
            raise InputError("task", expected, "'translate'", hint=hint)
        return result


def read_speech_tokens(
    vocabulary: Vocabulary, rows: int, settings: Mapping[str, Any], place: str
) -> SpeechTokens:
    """Find the control tokens in a tokenizer, and the suppressed ids in the settings.

    `rows` are those of the token embedding. ModelFileError for a missing token, an id without a
    row, or no room for a timestamp.
    """
    control = vocabulary.control

    def token(text: str) -> int:
        if text not in control:
            raise ModelFileError(place, f"its tokenizer lacks the token {text!r}")
        return control[text]

    start, end = token("<|startoftranscript|>"), token("<|endoftext|>")
    no_timestamps = token("<|notimestamps|>")
    largest = max(control.values())
    if max(largest, no_timestamps + 1) >= rows:
        problem = f"token {largest:,} and the timestamps behind it do not fit {rows:,} embeddings"
        raise ModelFileError(place, problem)
    multilingual = settings.get("is_multilingual")
    if not isinstance(multilingual, bool):
        multilingual = rows >= _MULTILINGUAL
    languages = {m[1]: i for text, i in control.items() if (m := _LANGUAGE.fullmatch(text))}
    tasks = {task: token(f"<|{task}|>") for task in TASKS} if multilingual else {}
    no_speech = next((control[text] for text in _NO_SPEECH if text in control), None)
    never = {*_ids(settings, ("suppress_tokens", "suppress_ids"), rows, place), no_timestamps}
    never |= {control[text] for text in (*_PREFIX, *_NO_SPEECH) if text in control}
    never |= {control[f"<|{task}|>"] for task in TASKS if f"<|{task}|>" in control}
    first = _ids(settings, ("begin_suppress_tokens", "suppress_ids_begin"), rows, place)
    return SpeechTokens(
        start=start,
        end=end,
        tasks=tasks,
        no_speech=no_speech,
        no_timestamps=no_timestamps,
        languages=languages if multilingual else {},
        never=tuple(sorted(never - {end})),
        not_first=tuple(sorted({*first, end})),
    )


def _ids(settings: Mapping[str, Any], names: Iterable[str], rows: int, place: str) -> list[int]:
    """Return the ids under the first of the names that exists."""
    for name in names:
        result = settings.get(name)
        if result is None:
            continue
        if not isinstance(result, list) or not all(
            type(i) is int and 0 <= i < rows for i in result
        ):
            raise ModelFileError(place, f"its {name} is not a list of token ids below {rows:,}")
        return result
    return []
