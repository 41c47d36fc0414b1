"""`bascule transcribe`: the text of a recording, as text, subtitles or JSON; `bascule convert`."""

from __future__ import annotations

import argparse
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bascule.cli.models import add_model_arguments, opened_model
from bascule.errors import InputError

# As `tasks.transcription.FORMATS`, `tasks.speech_tokens.TASKS`: help needs no model's modules.
_FORMATS = ("txt", "srt", "vtt", "json")
_TASKS = ("transcribe", "translate")
DEFAULT_SPEECH = "whisper-tiny.en"


def add_transcribe_arguments(parser: argparse.ArgumentParser) -> None:
    """What `transcribe` takes."""
    parser.add_argument("file", metavar="FILE", help="a recording's path or URL")
    add_model_arguments(parser, "name, hub id, folder or URL", DEFAULT_SPEECH)
    parser.add_argument("--language", metavar="CODE", help="such as en or de; default: detected")
    parser.add_argument("--task", default="transcribe", choices=_TASKS, help="(%(default)s)")
    parser.add_argument("--format", default="txt", choices=_FORMATS, help="(%(default)s)")
    parser.add_argument("--vad-filter", action="store_true", help="skip pauses of 2 s and more")
    parser.add_argument(
        "--vad-model", metavar="MODEL", help="skip those by a model, such as silero-vad"
    )
    parser.add_argument("--words", action="store_true", help="a line or subtitle for each word")


async def transcribe(parsed: argparse.Namespace) -> None:
    """Write down what a recording says.

    Lines are printed as they come, other formats once all is there.
    """
    from bascule.tasks.speech import SpeechModel
    from bascule.tasks.voice import VoiceActivityModel

    async with AsyncExitStack() as opened:
        hint = "Use a speech model, such as whisper-tiny.en or whisper-base."
        transcriber = opened_model(parsed, SpeechModel, "it transcribes no speech", hint)
        model = await opened.enter_async_context(transcriber)
        voice: bool | VoiceActivityModel = parsed.vad_filter
        if parsed.vad_model is not None:
            named = argparse.Namespace(model=parsed.vad_model, tier=parsed.tier)
            hint = "Use a voice activity model, such as silero-vad."
            detector = opened_model(named, VoiceActivityModel, "it detects no speech", hint)
            voice = await opened.enter_async_context(detector)
        lines = parsed.format == "txt" and not parsed.words
        options: dict[str, Any] = {
            "language": parsed.language,
            "task": parsed.task,
            "vad_filter": voice,
            "word_timestamps": parsed.words,
        }
        async with model.stream_transcribe(parsed.file, **options) as stream:
            async for segment in stream:
                if lines:
                    print(segment.text.strip(), flush=True)
        if not lines:
            print(stream.result.formatted(parsed.format, words=parsed.words), end="")


def add_convert_arguments(parser: argparse.ArgumentParser) -> None:
    """What `convert` takes."""
    parser.add_argument(
        "model", metavar="MODEL", help="a folder of CTranslate2, its URL, or a known model's name"
    )
    parser.add_argument("folder", type=Path, metavar="NEW", help="the folder to write")


async def convert(parsed: argparse.Namespace) -> None:
    """Write a CTranslate2 model as a Hugging Face folder."""
    from bascule.cli.terminal import progress_bar
    from bascule.device.loading import open_files
    from bascule.recipes.speech_conversion import convert_speech

    source, file = open_files(parsed.model)
    try:
        if file is not None:
            hint = "GGUF files load as they are."
            raise InputError("convert", "a CTranslate2 folder", parsed.model, hint=hint)
        with progress_bar() as notify:
            await convert_speech(source, parsed.folder, notify)
    finally:
        await source.settle()
        source.release()
    print(parsed.folder)
