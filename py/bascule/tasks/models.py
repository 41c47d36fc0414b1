"""The models that `bascule.load` may return."""

from __future__ import annotations

from typing import TypeAlias

from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.speech import SpeechModel
from bascule.tasks.text_to_text import TextToTextModel
from bascule.tasks.voice import VoiceActivityModel

AnyModel: TypeAlias = (
    EmbeddingModel
    | ClassifierModel
    | LanguageModel
    | SpeechModel
    | TextToTextModel
    | ImageModel
    | ImageTextModel
    | VoiceActivityModel
)
