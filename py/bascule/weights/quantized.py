"""Load float weights as float16 or as blocks of 4 or 8 bits, and report the errors of each.

The files' floats stream through a staging buffer of a few MiB on the device: as soon as a slab of a
weight is complete there it is quantized, and its place is free again. Files are read from start to
end, so that slabs complete early.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

from bascule.backend.base import Backend, WeightStore
from bascule.backend.quantize import CONVERTED, ErrorSums
from bascule.base.dtypes import DType
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import InputError, ModelFileError
from bascule.program.program import Parameter
from bascule.weights.pieces import ELEMENT_NBYTES
from bascule.weights.plan import Planned, plan_pieces
from bascule.weights.source import Source
from bascule.weights.stream import Headers, fill, mark_missing, read_headers, with_restarts

# Blocks quantized at once: 4 MiB of float32.
SLAB_BLOCKS = 1 << 15
_RUN = 32  # numbers of a block, in all formats
# Each slab is bound separately, and bindings start at multiples of this.
_ALIGNMENT = 256
_FORMAT_OF_BITS: Mapping[int, DType] = {4: "q4_1", 8: "q8_0"}


@dataclass(frozen=True, slots=True)
class TensorReport:
    """A weight after loading. `relative_error` is the RMS error over the RMS value; `kept` is the
    reason if it stayed float32, and its errors are 0 then.
    """

    name: str
    dtype: DType
    n_elements: int
    nbytes_before: int
    nbytes: int
    relative_error: float = 0.0
    max_error: float = 0.0
    kept: str = ""


@dataclass(frozen=True, slots=True)
class QuantizationReport:
    """How quantizing changed the weights of a model."""

    format: DType
    tensors: tuple[TensorReport, ...]

    @property
    def nbytes_before(self) -> int:
        """Bytes of all weights as float32."""
        return sum(tensor.nbytes_before for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights after quantizing."""
        return sum(tensor.nbytes for tensor in self.tensors)

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        names = TensorReport.__slots__
        tensors = [{name: getattr(tensor, name) for name in names} for tensor in self.tensors]
        sizes = {"nbytes_before": self.nbytes_before, "nbytes": self.nbytes}
        return {"format": self.format, **sizes, "tensors": tensors}


def format_of(quantize: int | str | None) -> DType | None:
    """Return the format for a number of bits or a name; None for None. InputError."""
    if quantize is None:
        return None
    if isinstance(quantize, int) and not isinstance(quantize, bool) and quantize in _FORMAT_OF_BITS:
        return _FORMAT_OF_BITS[quantize]
    for known in CONVERTED:
        if quantize == known:
            return known
    raise InputError("quantize", f"4, 8 or one of {', '.join(CONVERTED)}", repr(quantize)[:80])


def report_of(parameter: Parameter, sums: ErrorSums | None) -> TensorReport:
    """Return the report of one weight; without sums it stayed float32."""
    n_elements = prod(parameter.shape)
    sizes = (n_elements, 4 * n_elements, parameter.nbytes)
    if sums is not None:
        errors = (sums.relative_error, sums.max_error)
        return TensorReport(parameter.name, parameter.dtype, *sizes, *errors)
    if len(parameter.shape) == 2 and parameter.shape[1] % _RUN:
        reason = f"its rows of {parameter.shape[1]:,} are no multiple of {_RUN} long"
    else:
        reason = "what it is added to or scales is computed in float32"
    return TensorReport(parameter.name, parameter.dtype, *sizes, kept=reason)


def quantizing_nbytes(parameters: Sequence[Parameter], chunk_nbytes: int) -> int:
    """Return the most bytes that `load_quantized` holds on a device besides the weights.

    Float16 numbers of a chunk are widened, slabs are aligned, and each quantized parameter has sums
    of 16 bytes for each 64 blocks of a slab.
    """
    sizes = [4 * prod(p.shape) for p in parameters if p.dtype != "f32"]
    if not sizes:
        return 0
    slab = min(max(sizes), 4 * _RUN * SLAB_BLOCKS)
    slabs = len(sizes) + sum(sizes) // slab
    staging = min(sum(sizes), 2 * chunk_nbytes + 2 * slab) + slab + _ALIGNMENT * slabs
    return staging + 16 * (1 + len(sizes) * -(-(SLAB_BLOCKS + 1) // 64))


async def load_quantized(
    source: Source,
    parameters: Sequence[Parameter],
    store: WeightStore,
    backend: Backend,
    format: DType,
    *,
    progress: ProgressCallback | None = None,
    headers: Headers | None = None,
) -> QuantizationReport:
    """Fill `store` as `load_weights` does, and quantize the parameters whose dtype is a block type.

    Holds the final weights and a staging buffer: a chunk of the files, widened, and at most three
    slabs. Raises what `load_weights` raises, and ModelFileError for weights that are not finite or
    do not fit the format.
    """
    chosen = [parameter for parameter in parameters if parameter.dtype != "f32"]

    async def attempt() -> Mapping[str, ErrorSums]:
        if progress is not None:
            progress(Progress("weights", 0, 0))
        tables = await (headers or partial(read_headers, source))()
        floats = [replace(parameter, dtype="f32") for parameter in parameters]
        plan = plan_pieces(tables, floats, store.targets, source.location)
        chunks = {file: await source.chunk_nbytes(file) for file in tables}
        layout = _Layout(plan, {parameter.name for parameter in chosen}, chunks)
        quantizer = await backend.quantizer(
            store, chosen, staging_nbytes=layout.staging_nbytes, max_blocks=SLAB_BLOCKS
        )
        try:
            staging = layout.staged(quantizer.staging)

            def whole(planned: Planned) -> None:
                slab = staging.get(planned)
                if slab is not None:
                    place = (slab.first, planned.piece.target_offset, slab.count)
                    quantizer.quantize(planned.parameter, *place)

            await fill(source, list(staging), quantizer, progress, whole=whole)
            return await quantizer.sums()
        finally:
            quantizer.close()

    async def start_over(file: str) -> None:
        mark_missing(store, parameters)
        await source.forget(file)

    sums = await with_restarts(source, attempt, start_over)
    for parameter in chosen:
        if unfit := sums[parameter.name].n_unfit:
            problem = f"not finite or too large for {parameter.dtype}"
            raise ModelFileError(
                source.location,
                f"{unfit:,} numbers of {parameter.name} are {problem}",
                hint="Load it without quantize to see what they do.",
            )
    reports = [report_of(parameter, sums.get(parameter.name)) for parameter in parameters]
    return QuantizationReport(format, tuple(reports))


@dataclass(frozen=True, slots=True)
class _Slab:
    """Blocks of a weight: the first, and their number."""

    first: int
    count: int


class _Layout:
    """The pieces of a load in file order; those to be quantized are cut into slabs.

    The staging buffer is a ring of slabs. When a chunk arrives, every slab that ends before it has
    been quantized, so the buffer must hold the slabs that one chunk touches, and one more that
    would not fit before its end.
    """

    def __init__(
        self, plan: Sequence[Planned], quantized: set[str], chunks: Mapping[str, int]
    ) -> None:
        self._cut: list[tuple[Planned, _Slab | None]] = []
        touched, largest = Counter[tuple[str, int]](), 0
        for planned in sorted(plan, key=lambda p: (p.file, p.piece.file_offset)):
            if planned.parameter not in quantized:
                self._cut.append((planned, None))
                continue
            for part, slab in _slabs(planned):
                self._cut.append((part, slab))
                begin, end = part.piece.file_offset, part.piece.file_offset + part.piece.nbytes
                chunk = chunks[part.file]
                largest = max(largest, _room(slab))
                for index in range(begin // chunk, -(-end // chunk)):
                    touched[part.file, index] += _room(slab)
        self.staging_nbytes = max(touched.values(), default=0) + largest

    def staged(self, staging: int) -> dict[Planned, _Slab | None]:
        """Return all pieces in order; slabs go to the staging buffer."""
        results: dict[Planned, _Slab | None] = {}
        at = 0
        for planned, slab in self._cut:
            if slab is None:
                results[planned] = None
                continue
            if at + _room(slab) > self.staging_nbytes:
                at = 0
            piece = replace(planned.piece, target=staging, target_offset=at)
            results[replace(planned, piece=piece)] = slab
            at += _room(slab)
        return results


def _room(slab: _Slab) -> int:
    nbytes = 4 * _RUN * slab.count
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT


def _slabs(planned: Planned) -> list[tuple[Planned, _Slab]]:
    """Cut a piece of floats at the ends of blocks."""
    piece, result = planned.piece, list[tuple[Planned, _Slab]]()
    block_nbytes = _RUN * ELEMENT_NBYTES[piece.dtype]
    n_blocks, before = piece.nbytes // block_nbytes, piece.target_offset // (4 * _RUN)
    for start in range(0, n_blocks, SLAB_BLOCKS):
        count = min(SLAB_BLOCKS, n_blocks - start)
        at = piece.file_offset + start * block_nbytes
        part = replace(piece, file_offset=at, nbytes=count * block_nbytes)
        result.append((replace(planned, piece=part), _Slab(before + start, count)))
    return result
