"""The recipe of sequence classifiers and cross-encoders: a Hugging Face folder in safetensors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.base.progress import Progress, ProgressCallback
from bascule.models.encoder.files import check_tensors
from bascule.models.family import EncoderFamily
from bascule.models.settings import Settings
from bascule.recipes.tables import (
    EncoderFolderRecipe,
    all_tensors,
    read_known,
    read_tables,
    read_tokenizer_json,
)
from bascule.tasks.classifier import ClassifierModel, ClassifierSettings
from bascule.tasks.loaded import Placement
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.settings import classifier_settings
from bascule.text import Tokenizer, open_pair_tokenizer
from bascule.text.pairs import Templates
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import with_restarts

# Rows of a table of token types that a pair can need, and more than any model has.
_MOST_TYPES = 1 << 10


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


async def read_classifier(
    source: Source,
    family: EncoderFamily,
    config_json: Mapping[str, Any],
    tokenizing: Awaitable[bytes],
    tell: ProgressCallback,
    weights: DType,
    known_files: Collection[str] = (),
) -> ClassifierRecipe:
    """Read what a folder says of a classifier; arguments and errors as `read_encoder`."""
    place = source.location

    read = partial(read_known, source, known_files)
    file = f"{place}/config.json"
    # The encoder's own reader knows no heads.
    config = family.config({**config_json, "architectures": None}, file)
    if family.typed_pairs:
        types = Settings(config_json, file).size("type_vocab_size", 2, _MOST_TYPES)
        config = replace(config, pair_types=types)
    folder, tables = await asyncio.gather(
        classifier_settings(Encoder(family, config), config_json, read, place),
        with_restarts(source, partial(read_tables, source, family), source.forget),
    )
    settings = replace(folder.settings, weights=weights)
    check_tensors(family, config, all_tensors(tables), place, len(settings.classes.labels))
    data = await read_tokenizer_json(tokenizing, tell, lowercases=folder.lowercases)
    tokenizer, templates = await open_pair_tokenizer(
        data, settings.max_tokens, n_embeddings=config.vocabulary, folder=place
    )
    tell(Progress("tokenizer", 1, 1, "files"))
    return ClassifierRecipe(settings, tokenizer, templates)
