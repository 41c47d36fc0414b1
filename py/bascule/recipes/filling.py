"""From a model's files into the memory for its weights."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bascule.backend.base import Backend, WeightStore
from bascule.base.dtypes import DType
from bascule.base.progress import ProgressCallback
from bascule.program.program import Parameter
from bascule.weights.computed import write_computed
from bascule.weights.quantized import QuantizationReport, load_quantized
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import load_weights

# Tensors by file.
Tables: TypeAlias = dict[str, dict[str, TensorInfo]]


@dataclass(frozen=True, slots=True)
class Filling:
    """Where a model's weights come from, and the store on a backend that takes them.

    With `parallel` two shards come at a time.
    """

    source: Source
    parameters: Sequence[Parameter]
    store: WeightStore
    backend: Backend
    progress: ProgressCallback
    parallel: bool = False

    def stored(self) -> list[Parameter]:
        """Write what is computed into the store; return the parameters that come from files."""
        return write_computed(self.parameters, self.store)

    async def from_folder(
        self,
        named: Sequence[Parameter],
        tables: Callable[[], Awaitable[Tables]],
        weights: DType | None = None,
    ) -> QuantizationReport | None:
        """Stream parameters, named as in the files, as blocks of the format `weights` if any.

        `tables` reads the tensors of its files. What is quantized comes one shard at a time.
        """
        if weights in (None, "f32"):
            await load_weights(
                self.source,
                named,
                self.store,
                progress=self.progress,
                parallel=self.parallel,
                headers=tables,
            )
            return None
        return await load_quantized(
            self.source,
            named,
            self.store,
            self.backend,
            weights,
            progress=self.progress,
            headers=tables,
        )
