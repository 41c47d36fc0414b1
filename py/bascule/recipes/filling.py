"""Fill the memory of a model's weights from its files."""

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
class WeightFiller:
    """The source of a model's weights, and their store on a backend.

    With `parallel` two shards are fetched at a time.
    """

    source: Source
    parameters: Sequence[Parameter]
    store: WeightStore
    backend: Backend
    progress: ProgressCallback
    parallel: bool = False

    def stored(self) -> list[Parameter]:
        """Write computed parameters into the store; return those that come from files."""
        return write_computed(self.parameters, self.store)

    async def from_folder(
        self,
        named: Sequence[Parameter],
        tables: Callable[[], Awaitable[Tables]],
        weights: DType | None = None,
    ) -> QuantizationReport | None:
        """Stream parameters, named as in the files, quantized to the format `weights` if any.

        `tables` reads the tensors of its files. When quantizing, shards are fetched one at a time.
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
