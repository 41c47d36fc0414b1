"""The recipe of sequence classifiers and cross-encoders: a Hugging Face folder in safetensors."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bascule.models.encoder.files import check_tensors
from bascule.models.family import EncoderFamily
from bascule.models.settings import Settings
from bascule.recipes.folder import Folder
from bascule.recipes.tables import EncoderFolderRecipe, all_tensors
from bascule.tasks.classifier import ClassifierModel, ClassifierSettings
from bascule.tasks.loaded import Placement
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.settings import classifier_settings
from bascule.text import Tokenizer, open_pair_tokenizer
from bascule.text.pairs import Templates
from bascule.weights.safetensors import TensorInfo

# Rows of a table of token types that a pair needs, and more than any model has.
_MAX_TYPES = 1 << 10


@dataclass(frozen=True, slots=True)
class ClassifierRecipe(EncoderFolderRecipe):
    """A sequence classifier in safetensors; see `recipes.Recipe`."""

    settings: ClassifierSettings
    tokenizer: Tokenizer
    templates: Templates

    def make(self, placement: Placement) -> ClassifierModel:
        return ClassifierModel(placement, self.settings, self.tokenizer, self.templates)


def is_classifier(family: EncoderFamily, config: Mapping[str, Any]) -> bool:
    """Whether a config.json's architectures are those of the family's sequence classifiers."""
    listed = config.get("architectures")
    known = family.head.architectures if family.head else ()
    return isinstance(listed, list) and bool(listed) and all(name in known for name in listed)


def has_head(
    family: EncoderFamily, config: Mapping[str, Any], tensors: Mapping[str, TensorInfo]
) -> bool:
    """Whether a folder without architectures has the tensors of the family's head."""
    labels = f"{family.head.labels}.weight" if family.head else ""
    return not config.get("architectures") and labels in tensors


async def read_classifier(folder: Folder, family: EncoderFamily) -> ClassifierRecipe:
    """Read a classifier's folder; errors as `recipes.read_recipe`."""
    place, file = folder.place, folder.config_place
    # The encoder's own reader knows no heads.
    config = family.config({**folder.config, "architectures": None}, file)
    if family.typed_pairs:
        types = Settings(folder.config, file).size("type_vocab_size", 2, _MAX_TYPES)
        config = replace(config, pair_types=types)
    stated, tables = await asyncio.gather(
        classifier_settings(Encoder(family, config), folder.config, folder.read, place),
        folder.tables(family),
    )
    settings = replace(stated.settings, weights=folder.options.weights or "f32")
    check_tensors(family, config, all_tensors(tables), place, len(settings.classes.labels))
    data = await folder.tokenizer_json(lowercases=stated.lowercases)
    tokenizer, templates = await open_pair_tokenizer(
        data, settings.max_tokens, n_embeddings=config.vocabulary, folder=place
    )
    folder.notify_tokenizer()
    return ClassifierRecipe(settings, tokenizer, templates)
