"""The tasks of pipelines: which models do each, and what each takes besides its inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bascule.pipelines import media, texts
from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.models import AnyModel
from bascule.tasks.options import OPTIONS as GENERATE
from bascule.tasks.speech import SpeechModel
from bascule.tasks.speech_options import OPTIONS as TRANSCRIBE
from bascule.tasks.text_to_text import TextToTextModel

_BATCH = ("batch_size", "progress")
_TEXTS = (*_BATCH, "truncate")
_EMBED = (*_TEXTS, "prompt", "prompt_name")


@dataclass(frozen=True, slots=True)
class Task:
    """A task: the model that it `needs` in words, which models fit it, and how it runs.

    `run(model, inputs, options)` may change its options; `options` are all their names.
    """

    needs: str
    fits: Callable[[AnyModel], bool]
    run: Callable[[Any, Any, dict[str, Any]], Awaitable[Any]]
    options: tuple[str, ...]
    default_model: str | None = None


def _is(kind: type[Any] | tuple[type[Any], ...]) -> Callable[[AnyModel], bool]:
    return lambda model: isinstance(model, kind)


def _ranks(model: AnyModel) -> bool:
    return isinstance(model, ClassifierModel) and len(model.labels) == 1


def _labels_images(model: AnyModel) -> bool:
    return isinstance(model, ImageModel) and bool(model.labels)


TASKS: Mapping[str, Task] = {
    "feature-extraction": Task(
        "a sentence encoder",
        _is(EmbeddingModel),
        texts.feature_extraction,
        _EMBED,
        "all-MiniLM-L6-v2",
    ),
    "sentence-similarity": Task(
        "a sentence encoder",
        _is(EmbeddingModel),
        texts.sentence_similarity,
        _EMBED,
        "all-MiniLM-L6-v2",
    ),
    "text-generation": Task(
        "a language model",
        _is(LanguageModel),
        texts.text_generation,
        (*GENERATE, "return_full_text"),
        "SmolLM2-135M-Instruct",
    ),
    "text2text-generation": Task(
        "a text-to-text model",
        _is(TextToTextModel),
        texts.text_to_text,
        ("batch_size", *(name for name in GENERATE if name != "overflow")),
    ),
    "text-classification": Task(
        "a sequence classifier",
        _is(ClassifierModel),
        texts.text_classification,
        (*_TEXTS, "top_k"),
    ),
    "reranking": Task(
        "a cross-encoder of one label",
        _ranks,
        texts.reranking,
        (*_TEXTS, "top_k", "return_text"),
    ),
    "automatic-speech-recognition": Task(
        "a speech model",
        _is(SpeechModel),
        media.speech_recognition,
        (*TRANSCRIBE, "return_timestamps"),
        "whisper-tiny.en",
    ),
    "image-classification": Task(
        "an image model with labels",
        _labels_images,
        media.image_classification,
        (*_BATCH, "top_k"),
    ),
    "zero-shot-image-classification": Task(
        "a model of images and texts",
        _is(ImageTextModel),
        media.zero_shot_images,
        (*_BATCH, "candidate_labels", "hypothesis_template"),
    ),
    "image-feature-extraction": Task(
        "an image model",
        _is((ImageModel, ImageTextModel)),
        media.image_features,
        (*_BATCH, "pooling", "normalize"),
    ),
}
# Hugging Face's other names of these tasks.
OTHER_NAMES: Mapping[str, str] = {
    "sentiment-analysis": "text-classification",
    "summarization": "text2text-generation",
    "text-ranking": "reranking",
    "translation": "text2text-generation",
}
