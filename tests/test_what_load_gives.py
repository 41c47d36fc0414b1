"""What `load` gives: its type by the known names, and what `help` shows of it."""

from __future__ import annotations

import inspect
from typing import Literal, get_args, get_origin, get_overloads, get_type_hints

import pytest

import bascule
from bascule import ClassifierModel, EmbeddingModel, LanguageModel, SpeechModel
from bascule.backend.base import Executable, WeightStore
from bascule.device.loading import load
from bascule.program.program import Program
from bascule.tasks.registry import KNOWN
from bascule.tasks.voice import VoiceActivityModel
from tests.goldens import TINY_BERT

KINDS = {"sentence-encoder": EmbeddingModel, "language-model": LanguageModel}
KINDS |= {"speech-model": SpeechModel, "voice-activity": VoiceActivityModel}


def test_the_overloads_name_every_known_model() -> None:
    named: dict[str, type] = {}
    for one in get_overloads(load):
        hints = get_type_hints(one)
        if get_origin(hints["model"]) is Literal:
            named |= dict.fromkeys(get_args(hints["model"]), hints["return"])
    assert named == {model.name: KINDS[model.kind] for model in KNOWN.values()}


def test_the_overloads_have_every_option() -> None:
    real = dict(get_type_hints(load))
    del real["return"], real["model"]
    assert set(real) == set(inspect.signature(load).parameters) - {"model"}
    for one in get_overloads(load):
        (options,) = get_args(get_type_hints(one)["options"])
        assert get_type_hints(options) == real


def test_help_shows_no_method_that_bascule_alone_calls() -> None:
    both = {"backend", "close", "device_stats", "fallbacks", "has_f16_cache", "loaded", "lost"}
    both |= {"note", "prepare", "prove", "revive", "stats", "trim", "tune", "yield_to"}
    encoder = {"embed", "embed_rows", "prompts"}
    classifier = {"classify", "logits", "rank"}
    writer = {"can_chat", "chat", "chat_ids", "generate", "logits", "stream", "stream_chat"}
    listener = {"probabilities", "speech_spans"}
    hearer = {"detect_language", "languages", "stream_transcribe", "tokenizer", "transcribe"}
    for kind, own in (
        (EmbeddingModel, encoder),
        (ClassifierModel, classifier),
        (LanguageModel, writer),
        (SpeechModel, hearer),
        (VoiceActivityModel, listener),
    ):
        assert {name for name in dir(kind) if not name.startswith("_")} == both | own


async def test_prepare_makes_what_the_first_embed_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    async with await bascule.load(TINY_BERT, tier="cpu", prove=False) as model:
        assert isinstance(model, EmbeddingModel)
        made: list[object] = []
        real = model.backend.prepare

        async def counted(program: Program, store: WeightStore) -> Executable:
            made.append(program)
            return await real(program, store)

        monkeypatch.setattr(model.backend, "prepare", counted)
        await model.prepare(batch=4, tokens=40)
        assert len(made) == 1
        await model.embed(["cat " * 100] * 4)  # cut to the model's 40 tokens
        assert len(made) == 1
