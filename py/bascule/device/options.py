"""The options of loading a model, once for type checkers and once with defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from bascule.base.progress import ProgressCallback
from bascule.models.decoder.graph import CacheDType
from bascule.weights.source import CHUNK_NBYTES

CHUNK_MB = CHUNK_NBYTES / (1 << 20)


class DeviceLoadOptions(TypedDict, total=False):
    """The options of `Device.load`; see `bascule.load`."""

    progress: ProgressCallback | None
    wait: bool
    chunk_size_mb: float
    parallel: bool
    max_length: int | None
    cache_dtype: CacheDType | None
    quantize: int | str | None
    fallbacks: bool
    prove: bool | None
    precompile: bool
    stream_weights: bool


class LoadOptions(DeviceLoadOptions, total=False):
    """The options of `bascule.load`."""

    tier: str | Sequence[str]


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """`DeviceLoadOptions` with their defaults; the model's device holds at most `memory_nbytes`.

    Without `revalidate` cached files are used without asking the server for their version.
    """

    progress: ProgressCallback | None = None
    wait: bool = True
    chunk_size_mb: float = CHUNK_MB
    parallel: bool = False
    max_length: int | None = None
    cache_dtype: CacheDType | None = None
    quantize: int | str | None = None
    fallbacks: bool = True
    prove: bool | None = None
    precompile: bool = True
    stream_weights: bool = False
    memory_nbytes: int | None = None
    revalidate: bool = True
