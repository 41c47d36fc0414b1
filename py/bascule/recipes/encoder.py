"""The recipe of sentence encoders: a Hugging Face folder in safetensors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from bascule.errors import UnsupportedModelError
from bascule.models.encoder.files import check_tensors
from bascule.models.family import EncoderFamily
from bascule.recipes.classifier import (
    ClassifierRecipe,
    has_head,
    is_classifier,
    read_classifier,
)
from bascule.recipes.folder import Folder
from bascule.recipes.tables import EncoderFolderRecipe, all_tensors, read_module_tables
from bascule.tasks.buckets import SMALLEST
from bascule.tasks.embedder import EmbedderSettings, EmbeddingModel
from bascule.tasks.loaded import Placement
from bascule.tasks.sentence_graph import Encoder
from bascule.tasks.sentence_modules import module_folders
from bascule.tasks.settings import folder_settings
from bascule.text import Tokenizer, open_tokenizer
from bascule.weights.plan import plan_pieces


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


async def read_encoder(folder: Folder, family: EncoderFamily) -> EncoderRecipe | ClassifierRecipe:
    """Read the folder of an encoder, or of a classifier; errors as `recipes.read_recipe`.

    A folder without architectures may be a classifier's, which only its tensors show.
    """
    if is_classifier(family, folder.config):
        return await read_classifier(folder, family)
    place = folder.place
    config = family.config(folder.config, folder.config_place)
    settings, tables = await asyncio.gather(
        folder_settings(Encoder(family, config), folder.read, place), folder.tables(family)
    )
    # Before any program is made: a config.json of 200 bytes may claim any number of layers.
    every = all_tensors(tables)
    if has_head(family, folder.config, every):
        return await read_classifier(folder, family)
    check_tensors(family, config, every, place)
    encoder = replace(settings.embedder, weights=folder.options.weights or "f32")
    await _check_modules(folder, encoder)
    data = await folder.tokenizer_json(lowercases=settings.lowercases)
    tokenizer = await open_tokenizer(
        data, encoder.max_tokens, n_embeddings=config.vocabulary, folder=place
    )
    folder.notify_tokenizer()
    return EncoderRecipe(encoder, tokenizer)


async def _check_modules(folder: Folder, encoder: EmbedderSettings) -> None:
    """Compare the modules' tensors with their settings, and all widths."""
    folders = module_folders(encoder.modules)
    if not folders:
        return
    parameters = replace(encoder, weights="f32").program(SMALLEST).parameters
    own = [p for p in parameters if p.name.split("/")[0] in folders]
    if own:
        tables = await folder.restarted(partial(read_module_tables, folder.source, folders))
        targets = {parameter.name: 0 for parameter in own}
        plan_pieces(tables, own, targets, folder.place)
        read = {name for parameter in own for name in parameter.tensors}
        unread = sorted({name for table in tables.values() for name in table} - read)
        if unread:
            problem = f"it has the tensor {unread[0][:80]!r}, which its settings do not name"
            raise UnsupportedModelError(folder.place, problem)
