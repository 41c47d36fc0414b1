"""Fourier transforms on the GPU: powers of two in passes, any other length by Bluestein's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from bascule.array.graph import Node
from bascule.base.arrays import np

if TYPE_CHECKING:
    from bascule.array.store import Memory


class Recorder(Protocol):
    """Records the dispatches of a run."""

    def upload(self, node: Node) -> None:
        """Upload known numbers."""
        ...

    async def record(
        self, kernel: str, reads: list[Memory], n_words: int, numbers: Mapping[str, int | float]
    ) -> Memory:
        """Record a dispatch over `numbers["lanes"]` lanes of a linked kernel; return its output."""
        ...


async def transformed(run: Recorder, node: Node) -> Memory:
    """Transform the rows of a node's input (rows, n, 2), real and imaginary parts."""
    source = node.inputs[0]
    run.upload(source)
    rows, n, sign = node.attribute
    assert source.memory is not None
    if n & (n - 1) == 0:
        return await _power_of_two(run, source.memory, rows, n, sign)
    wide = 1 << (2 * n - 2).bit_length()
    chirp, filter_ = (_known(node, numbers) for numbers in _chirps(n, wide, sign))
    for each in (chirp, filter_):
        run.upload(each)
    result = await _chirped(run, source.memory, chirp, (rows, n, wide, n))
    result = await _power_of_two(run, result, rows, wide, -1)
    result = await _chirped(run, result, filter_, (rows, wide, wide, wide))
    result = await _power_of_two(run, result, rows, wide, 1)
    return await _chirped(run, result, chirp, (rows, wide, n, n))


async def _power_of_two(run: Recorder, memory: Memory, rows: int, n: int, sign: int) -> Memory:
    span = 1
    while span < n:
        radix = 4 if n // span % 4 == 0 else 2
        numbers = {"lanes": rows * n // radix, "n": n, "span": span, "radix": radix, "sign": sign}
        memory = await run.record("array_fft", [memory], 2 * rows * n, numbers)
        span *= radix
    return memory


async def _chirped(
    run: Recorder, memory: Memory, by: Node, sizes: tuple[int, int, int, int]
) -> Memory:
    rows, x_width, y_width, inside = sizes
    assert by.memory is not None
    lanes = rows * y_width
    numbers = {"lanes": lanes, "x_width": x_width, "y_width": y_width, "inside": inside}
    return await run.record("array_chirp", [memory, by.memory], 2 * lanes, numbers)


def _known(node: Node, numbers: Any) -> Node:
    result = Node(node.device, "data", (), numbers.shape, numbers.dtype)
    result.host = numbers
    return result


@lru_cache(maxsize=4)
def _chirps(n: int, wide: int, sign: int) -> tuple[Any, Any]:
    """Return exp(sign pi i k**2 / n), and the transform of its mirrored conjugate, over `wide`."""
    k = np.arange(n, dtype=np.int64)
    chirp = np.exp(sign * 1j * np.pi * (k * k % (2 * n)) / n)
    spread = np.zeros(wide, np.complex128)
    spread[:n] = chirp.conj()
    spread[wide - n + 1 :] = chirp.conj()[:0:-1]
    return _words(chirp), _words(np.fft.fft(spread) / wide)


def _words(numbers: Any) -> Any:
    return np.stack([numbers.real, numbers.imag], axis=-1).astype(np.float32)
