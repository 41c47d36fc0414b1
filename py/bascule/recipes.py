"""From a model's small files to the model itself: one recipe for each kind of model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from bascule.backend.base import Backend, WeightStore
from bascule.dtypes import DType, dtype_of
from bascule.errors import FileMissingError, InputError, ModelFileError
from bascule.model.bert import BertConfig
from bascule.model.embedder import EmbedderSettings, EmbeddingModel
from bascule.model.language import LanguageModel, LanguageSettings
from bascule.model.language_programs import essential_programs
from bascule.model.llama import ROPE_FACTORS, CacheDType, LlamaConfig
from bascule.model.loaded import LoadedModel
from bascule.model.settings import embedder_settings
from bascule.program.program import Parameter, Program
from bascule.progress import Progress, ProgressCallback
from bascule.text import Tokenizer, open_tokenizer
from bascule.text.chat import open_chat_template
from bascule.text.language import open_text_tokenizer
from bascule.text.vocabulary import read_vocabulary
from bascule.tiers.openers import OpenedTier
from bascule.weights.gguf import GgufHeader
from bascule.weights.gguf_stream import find_gguf, load_gguf_weights, read_gguf
from bascule.weights.quantised import QuantizationReport, load_quantised
from bascule.weights.source import Source
from bascule.weights.stream import load_weights


class Recipe(Protocol):
    """What is known of a model before its weights come."""

    def programs(self) -> list[Program]:
        """The passes that it will most likely run; the first one has every parameter."""
        ...

    def make(
        self,
        name: str,
        opened: OpenedTier,
        store: WeightStore,
        *,
        owns_backend: bool,
        on_close: Callable[[], None],
    ) -> LoadedModel:
        """The model on an open tier, its weights still to come."""
        ...

    async def fill(
        self,
        source: Source,
        parameters: Sequence[Parameter],
        store: WeightStore,
        progress: ProgressCallback,
        *,
        backend: Backend,
        parallel: bool,
    ) -> QuantizationReport | None:
        """Stream the weights into the store; tells what quantising did to them, if it had to."""
        ...


async def read_recipe(
    source: Source,
    file: str | None,
    tell: ProgressCallback,
    *,
    max_length: int | None = None,
    cache_dtype: CacheDType = "f16",
    weights: DType | None = None,
) -> Recipe:
    """Read a model's small files: those of a GGUF `file`, or of whatever the folder holds.

    `weights` is the block format that float weights are to be made into. InputError where a file's
    weights are in blocks already; ModelFileError, UnsupportedModelError or SourceError if that is
    not a model that can run.
    """
    if file is None:
        try:
            return await _read_encoder(source, tell, weights or "f32")
        except FileMissingError as missing:
            if not missing.location.endswith("config.json"):
                raise
            file = await find_gguf(source)
            if file is None:
                raise
    if weights is not None:
        found = f"{file}, whose weights are loaded in the blocks that it has"
        raise InputError("quantize", "a model in safetensors", found)
    return await _read_language(source, file, tell, max_length, cache_dtype)


@dataclass(frozen=True, slots=True)
class EncoderRecipe:
    """A sentence encoder in safetensors."""

    settings: EmbedderSettings
    tokenizer: Tokenizer

    def programs(self) -> list[Program]:
        """See `Recipe`."""
        return self.settings.programs()

    def make(
        self, name: str, opened: OpenedTier, store: WeightStore, **options: Any
    ) -> EmbeddingModel:
        """See `Recipe`."""
        return EmbeddingModel(
            name,
            self.settings,
            self.tokenizer,
            opened.backend,
            store,
            tier_reason=opened.reason,
            **options,
        )

    async def fill(
        self,
        source: Source,
        parameters: Sequence[Parameter],
        store: WeightStore,
        progress: ProgressCallback,
        *,
        backend: Backend,
        parallel: bool,
    ) -> QuantizationReport | None:
        """See `Recipe`. What is quantised comes one shard at a time."""
        format = self.settings.weights
        if format == "f32":
            await load_weights(source, parameters, store, progress=progress, parallel=parallel)
            return None
        return await load_quantised(source, parameters, store, backend, format, progress=progress)


@dataclass(frozen=True, slots=True)
class LanguageRecipe:
    """A language model in one GGUF file."""

    settings: LanguageSettings
    file: str
    header: GgufHeader
    max_length: int | None
    cache_dtype: CacheDType

    def programs(self) -> list[Program]:
        """See `Recipe`."""
        config = self.settings.config
        return essential_programs(config, self.max_length or config.context, self.cache_dtype)

    def make(
        self, name: str, opened: OpenedTier, store: WeightStore, **options: Any
    ) -> LanguageModel:
        """See `Recipe`."""
        return LanguageModel(
            name,
            self.settings,
            opened.backend,
            store,
            tier_reason=opened.reason,
            max_length=self.max_length,
            cache_dtype=self.cache_dtype,
            **options,
        )

    async def fill(
        self,
        source: Source,
        parameters: Sequence[Parameter],
        store: WeightStore,
        progress: ProgressCallback,
        *,
        backend: Backend,
        parallel: bool,
    ) -> None:
        """See `Recipe`. One file has nothing to fetch in parallel."""
        del backend, parallel
        await load_gguf_weights(
            source, self.file, self.header, parameters, store, progress=progress
        )


async def read_encoder_settings(source: Source) -> EmbedderSettings:
    """What a sentence encoder's folder says of it; errors as `read_recipe`."""
    place = f"{source.location}/config.json"
    config = BertConfig.from_json(await source.read("config.json"), place)
    return await embedder_settings(config, partial(_read_optional, source))


async def _read_encoder(source: Source, tell: ProgressCallback, weights: DType) -> EncoderRecipe:
    tell(Progress("config", 0, 1, "files"))
    # Asked for now, needed after the others: a round trip less.
    tokenizing = asyncio.ensure_future(source.read("tokenizer.json"))
    try:
        settings = replace(await read_encoder_settings(source), weights=weights)
        tell(Progress("config", 1, 1, "files"))
        tell(Progress("tokenizer", 0, 1, "files"))
        tokenizer = await open_tokenizer(await tokenizing, settings.max_tokens)
    finally:
        tokenizing.cancel()
        await asyncio.gather(tokenizing, return_exceptions=True)
    tell(Progress("tokenizer", 1, 1, "files"))
    return EncoderRecipe(settings, tokenizer)


async def _read_language(
    source: Source,
    file: str,
    tell: ProgressCallback,
    max_length: int | None,
    cache_dtype: CacheDType,
) -> LanguageRecipe:
    place = f"{source.location}/{file}"
    tell(Progress("config", 0, 1, "files"))
    header = await read_gguf(source, file)
    types: dict[str, DType] = {t.name: dtype_of(t.type) for t in header.tensors.values()}
    table = header.tensors.get("token_embd.weight")
    if table is None or len(table.shape) != 2:
        raise ModelFileError(place, "it lacks the matrix 'token_embd.weight'")
    config = LlamaConfig.from_metadata(header.metadata, types, table.shape[0], place)
    tell(Progress("config", 1, 1, "files"))
    tell(Progress("tokenizer", 0, 1, "files"))
    vocabulary = read_vocabulary(header.metadata, place)
    if len(vocabulary.tokens) > config.vocabulary:
        told = f"it has {len(vocabulary.tokens):,} tokens and {config.vocabulary:,} embeddings"
        raise ModelFileError(place, told)
    tokenizer = await open_text_tokenizer(vocabulary)
    template = await open_chat_template(tokenizer, place) if vocabulary.chat_template else None
    tell(Progress("tokenizer", 1, 1, "files"))
    factors = await _rope_factors(source, file, header, config)
    settings = LanguageSettings(config, tokenizer, template, factors)
    return LanguageRecipe(settings, file, header, max_length, cache_dtype)


async def _rope_factors(
    source: Source, file: str, header: GgufHeader, config: LlamaConfig
) -> np.ndarray[Any, np.dtype[np.float32]] | None:
    tensor = header.tensors.get(ROPE_FACTORS)
    if tensor is None:
        return None
    if tensor.type.name != "F32" or tensor.shape != (config.size // 2,):
        raise ModelFileError(f"{source.location}/{file}", f"{ROPE_FACTORS} is not as it should be")
    found = np.frombuffer(await source.read(file, tensor.start, tensor.nbytes), np.float32)
    if not (np.isfinite(found).all() and (found > 0).all()):
        raise ModelFileError(f"{source.location}/{file}", f"{ROPE_FACTORS} holds no factors")
    return found


async def _read_optional(source: Source, file: str) -> bytes | None:
    """None for a file that a folder may lack, an error for a bad network."""
    try:
        return await source.read(file)
    except FileMissingError:
        return None
