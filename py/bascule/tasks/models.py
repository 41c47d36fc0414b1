"""What `bascule.load` may return."""

from __future__ import annotations

from typing import TypeAlias

from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel

AnyModel: TypeAlias = EmbeddingModel | ClassifierModel | LanguageModel
