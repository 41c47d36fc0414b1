"""Loading: a header is read and checked, then the tensors stream into a weight store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from bascule.backend.base import WeightStore
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.program.program import Parameter
from bascule.progress import Progress, ProgressCallback
from bascule.weights.safetensors import TensorInfo, header_nbytes, parse_header
from bascule.weights.source import Piece, Source
from bascule.weights.widen import ELEMENT_NBYTES


async def load_weights(
    source: Source,
    parameters: Sequence[Parameter],
    store: WeightStore,
    *,
    file: str = "model.safetensors",
    prefixes: Sequence[str] = ("", "bert."),
    progress: ProgressCallback | None = None,
) -> None:
    """Fill `store` with `parameters` from a safetensors file.

    A tensor may carry one of `prefixes` before its name. F16 and BF16 become float32. Raises
    ModelFileError for a file that is unsound or lacks a tensor, UnsupportedModelError for a dtype
    that is no float, SourceError when reading fails.
    """
    place = f"{source.location}/{file}"
    tensors = await read_header(source, file)
    pieces = plan_pieces(tensors, parameters, store.targets, prefixes, place)
    total = sum(piece.nbytes for piece in pieces)

    def report(done: int) -> None:
        if progress is not None:
            progress(Progress("weights", done, total))

    report(0)
    await source.stream(file, pieces, store, report)


async def read_header(source: Source, file: str) -> dict[str, TensorInfo]:
    """The checked table of a file's tensors, from two small reads."""
    place = f"{source.location}/{file}"
    nbytes = await source.size(file)
    if nbytes < 8:
        raise ModelFileError(place, f"it has {nbytes} bytes, too few for a header")
    length = header_nbytes(await source.read(file, 0, 8), nbytes, place)
    return parse_header(await source.read(file, 8, length), nbytes, place)


def plan_pieces(
    tensors: Mapping[str, TensorInfo],
    parameters: Sequence[Parameter],
    targets: Mapping[str, int],
    prefixes: Sequence[str],
    place: str,
) -> list[Piece]:
    """Which bytes go where, in the file's order."""
    pieces: list[Piece] = []
    for parameter in parameters:
        found = [_find(name, tensors, prefixes, place) for name in parameter.tensors]
        _check_shape(parameter, found, place)
        offset = 0
        for tensor in found:
            elements = prod(parameter.shape) if parameter.rows else prod(tensor.shape)
            nbytes = elements * ELEMENT_NBYTES[tensor.dtype]
            pieces.append(
                Piece(tensor.start, nbytes, targets[parameter.name], offset, tensor.dtype)
            )
            offset += 4 * elements
    return sorted(pieces, key=lambda piece: piece.file_offset)


def _find(
    name: str, tensors: Mapping[str, TensorInfo], prefixes: Sequence[str], place: str
) -> TensorInfo:
    found = next((tensors[p + name] for p in prefixes if p + name in tensors), None)
    if found is None:
        raise ModelFileError(place, f"it lacks the tensor {name!r}")
    if found.dtype not in ELEMENT_NBYTES:
        raise UnsupportedModelError(
            place, f"tensor {name!r} is {found.dtype}, and this version reads F32, F16 and BF16"
        )
    return found


def _check_shape(parameter: Parameter, found: Sequence[TensorInfo], place: str) -> None:
    """Tensors stacked on their first axis make the parameter; `rows` keeps the first few rows."""
    tails = {tensor.shape[1:] for tensor in found}
    first = parameter.rows or sum(tensor.shape[0] if tensor.shape else 0 for tensor in found)
    enough = not parameter.rows or all(t.shape and t.shape[0] >= parameter.rows for t in found)
    stacked = (first, *next(iter(tails)))
    fits = stacked == parameter.shape or (parameter.rows == 1 and stacked[1:] == parameter.shape)
    if len(tails) != 1 or not enough or not fits:
        shapes = ", ".join(f"{t.name} {list(t.shape)}" for t in found)
        raise ModelFileError(
            place, f"{shapes} does not make {parameter.name} {list(parameter.shape)} of config.json"
        )
