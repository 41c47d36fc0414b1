"""Load a GGUF file: its header first, then its tensors stream into a weight store unchanged.

The program depends on the header: if a restarted load finds another header, it fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from bascule.backend.base import WeightStore
from bascule.base.file_kinds import SNIFFED_NBYTES, check_kind
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import FileChangedError, FileMissingError, UnsupportedModelError
from bascule.program.program import Parameter
from bascule.weights.gguf import GgufHeader, read_gguf_header
from bascule.weights.names import MODEL_GGUF
from bascule.weights.plan import plan_pieces
from bascule.weights.safetensors import TensorInfo
from bascule.weights.source import Source
from bascule.weights.stream import fill, mark_missing, with_restarts


async def find_gguf(source: Source) -> str | None:
    """Return the name of a folder's GGUF file, model.gguf; None if there is none.

    SourceError if the folder cannot be read.
    """
    try:
        await source.size(MODEL_GGUF)
    except FileMissingError:
        return None
    return MODEL_GGUF


async def read_gguf(source: Source, file: str = MODEL_GGUF) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises ModelFileError if it is unsound, UnsupportedModelError for one part of a split model,
    SourceError if reading fails.
    """
    header = await with_restarts(source, partial(_header, source, file), source.forget)
    count = header.metadata.get("split.count")
    if isinstance(count, int) and count > 1:
        raise UnsupportedModelError(
            f"{source.location}/{file}",
            f"it is one of {count} files that a model was split into",
            hint="Use the model in one file, or join the parts: `llama-gguf-split --merge`.",
        )
    return header


async def load_gguf_weights(
    source: Source,
    file: str,
    header: GgufHeader,
    parameters: Sequence[Parameter],
    store: WeightStore,
    *,
    progress: ProgressCallback | None = None,
) -> None:
    """Fill `store` with `parameters`, in their order, from the file that `header` was read from.

    Parameters of f32 take F32, F16 or BF16 tensors and widen them; those of another dtype take a
    tensor's bytes unchanged. `store.arrivals` is notified of each complete parameter. Restarts and
    errors are those of `load_weights`; FileChangedError also if the file's header has changed.
    """
    place = f"{source.location}/{file}"
    table = {
        t.name: TensorInfo(t.name, t.type.name, t.shape, t.start, t.nbytes)
        for t in header.tensors.values()
    }
    plan = plan_pieces({file: table}, parameters, store.targets, place)

    async def attempt() -> None:
        if progress is not None:
            progress(Progress("weights", 0, 0))
        await fill(source, plan, store, progress)

    async def start_over(changed: str) -> None:
        mark_missing(store, parameters)
        await source.forget(changed)
        if await read_gguf(source, file) != header:
            raise FileChangedError(place, "it has become a different model meanwhile")

    await with_restarts(source, attempt, start_over)


async def _header(source: Source, file: str) -> GgufHeader:
    nbytes, place = await source.size(file), f"{source.location}/{file}"
    check_kind(await source.read(file, 0, min(nbytes, SNIFFED_NBYTES)), place)
    return await read_gguf_header(partial(source.read, file), nbytes, place)
