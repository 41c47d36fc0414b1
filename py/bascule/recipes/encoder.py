"""The recipe of sentence encoders: a Hugging Face folder in safetensors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from bascule.base.dtypes import DType
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import UnsupportedModelError
from bascule.models.encoder.files import check_tensors
from bascule.models.family import EncoderFamily
from bascule.recipes.classifier import ClassifierRecipe, has_head, read_classifier
from bascule.recipes.tables import (
    EncoderFolderRecipe,
    all_tensors,
    read_known,
    read_module_tables,
    read_tables,
    read_tokenizer_json,
)
from bascule.tasks.buckets import SMALLEST
from bascule.tasks.embedder import EmbedderSettings, EmbeddingModel
from bascule.tasks.loaded import Placement
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.sentence_modules import module_folders
from bascule.tasks.settings import folder_settings
from bascule.text import Tokenizer, open_tokenizer
from bascule.weights.plan import plan_pieces
from bascule.weights.source import Source
from bascule.weights.stream import with_restarts


@dataclass(frozen=True, slots=True)
class EncoderRecipe(EncoderFolderRecipe):
    """A sentence encoder in safetensors; see `recipes.Recipe`."""

    settings: EmbedderSettings
    tokenizer: Tokenizer

    @property
    def module_folders(self) -> Sequence[str]:
        return module_folders(self.settings.modules)

    def make(self, placement: Placement) -> EmbeddingModel:
        return EmbeddingModel(placement, self.settings, self.tokenizer)


async def read_encoder(
    source: Source,
    family: EncoderFamily,
    config_json: Mapping[str, Any],
    tokenizing: Awaitable[bytes],
    tell: ProgressCallback,
    weights: DType,
    known_files: Collection[str] = (),
) -> EncoderRecipe | ClassifierRecipe:
    """Read what a folder says of an encoder, or of a classifier that only its tensors give away.

    `tokenizing` reads its tokenizer.json, `known_files` are all of its files where they are known.
    Errors as `recipes.read_recipe`.
    """
    place = source.location

    read = partial(read_known, source, known_files)
    config = family.config(config_json, f"{place}/config.json")
    settings, tables = await asyncio.gather(
        folder_settings(Encoder(family, config), read, place),
        with_restarts(source, partial(read_tables, source, family), source.forget),
    )
    # Before any program is made: a config.json of 200 bytes may claim any number of layers.
    every = all_tensors(tables)
    if has_head(family, config_json, every):
        return await read_classifier(
            source, family, config_json, tokenizing, tell, weights, known_files
        )
    check_tensors(family, config, every, place)
    encoder = replace(settings.embedder, weights=weights)
    await _check_modules(source, encoder)
    data = await read_tokenizer_json(tokenizing, tell, lowercases=settings.lowercases)
    tokenizer = await open_tokenizer(
        data, encoder.max_tokens, n_embeddings=config.vocabulary, folder=place
    )
    tell(Progress("tokenizer", 1, 1, "files"))
    return EncoderRecipe(encoder, tokenizer)


async def _check_modules(source: Source, encoder: EmbedderSettings) -> None:
    """Compare the modules' tensors with their settings, and the widths of all of them."""
    folders = module_folders(encoder.modules)
    if not folders:
        return
    parameters = replace(encoder, weights="f32").program(SMALLEST).parameters
    own = [p for p in parameters if p.name.split("/")[0] in folders]
    if own:
        attempt = partial(read_module_tables, source, folders)
        tables = await with_restarts(source, attempt, source.forget)
        targets = {parameter.name: 0 for parameter in own}
        plan_pieces(tables, own, targets, source.location)
        read = {name for parameter in own for name in parameter.tensors}
        unread = sorted({name for table in tables.values() for name in table} - read)
        if unread:
            problem = f"it has the tensor {unread[0][:80]!r}, which its settings do not name"
            raise UnsupportedModelError(source.location, problem)
