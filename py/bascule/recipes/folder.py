"""A model's folder as recipes read it: its config.json, and the small files beside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bascule.base.dtypes import DType
from bascule.base.json_object import json_object
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import InputError
from bascule.models.decoder.graph import CacheDType
from bascule.models.family import Family
from bascule.recipes.filling import Tables
from bascule.recipes.tables import read_tables
from bascule.text.encoder_json import lowercased
from bascule.weights.early_read import EarlyRead
from bascule.weights.source import Source, read_optional
from bascule.weights.stream import with_restarts

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The options of a caller of `load`; `weights` is the block format of floats."""

    max_length: int | None = None
    cache_dtype: CacheDType | None = None
    weights: DType | None = None

    @property
    def cache(self) -> CacheDType:
        """The KV cache's dtype; float16 by default."""
        return self.cache_dtype or "f16"

    def check_unquantized(self, kind: str, place: str) -> None:
        """InputError for `weights`, if that kind of model cannot be quantized."""
        if self.weights is not None:
            hint = "Load it without quantize."
            raise InputError("quantize", f"no {kind}", place, hint=hint)


@dataclass(frozen=True, slots=True)
class Folder:
    """`config` is its config.json, `tokenizing` reads its tokenizer.json.

    `known_files` are all its files, if known: no other is requested.
    """

    source: Source
    config: Mapping[str, Any]
    tokenizing: EarlyRead
    notify: ProgressCallback
    options: ModelOptions
    known_files: Collection[str] = ()

    @property
    def place(self) -> str:
        """Where it is, for errors."""
        return self.source.location

    @property
    def config_place(self) -> str:
        """Where its config.json is, for errors."""
        return f"{self.place}/config.json"

    async def read(self, file: str) -> bytes | None:
        """Read a small file; None if it is missing."""
        if self.known_files and file not in self.known_files:
            return None
        return await read_optional(self.source, file)

    async def read_json(self, file: str) -> dict[str, Any] | None:
        """Read a file that contains a JSON object; None if it is missing."""
        data = await self.read(file)
        return None if data is None else json_object(data, f"{self.place}/{file}")

    async def restarted(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what `attempt` returns, restarted if a file changes meanwhile."""
        return await with_restarts(self.source, attempt, self.source.forget)

    async def tables(self, family: Family) -> Tables:
        """Read the tensors of the model, by the family's names."""
        return await self.restarted(lambda: read_tables(self.source, family))

    async def tokenizer_json(self, *, lowercases: bool = False) -> bytes:
        """Await tokenizer.json, once the config is read; it may have to lowercase its texts."""
        self.notify(Progress("config", 1, 1, "files"))
        self.notify(Progress("tokenizer", 0, 1, "files"))
        data = await self.tokenizing
        return lowercased(data) if lowercases else data

    def notify_tokenizer(self) -> None:
        """Report that the tokenizer is ready."""
        self.notify(Progress("tokenizer", 1, 1, "files"))
