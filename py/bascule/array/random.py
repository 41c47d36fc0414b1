"""Random arrays: counter-based (Philox 4x32), the same numbers on every tier.

rng = xp.random.Generator(seed=1)
x = rng.uniform((1000, 3))
"""

# pyright: reportPrivateUsage=false
# An array's node is private to this package.

from __future__ import annotations

from math import pi, prod
from secrets import randbits
from typing import Any

from bascule.array import build, dtypes
from bascule.array.array import Array
from bascule.array.errors import ShapeError
from bascule.array.graph import Node
from bascule.array.place import device as place_of


class Generator:
    """A stream of random numbers. Each call continues where the last one ended.

    Equal seeds and calls give equal numbers on every tier: `uniform` and `integers` bit by bit,
    `normal` to a few units in the last place.
    """

    def __init__(self, seed: int | None = None, *, device: Any = None) -> None:
        if seed is not None and not 0 <= seed < 1 << 64:
            raise ShapeError("Generator", "a seed from 0 to 2**64 - 1", str(seed))
        self._seed = randbits(63) if seed is None else seed
        self._device = place_of(device)
        self._calls = 0

    def bits(self, shape: int | tuple[int, ...]) -> Array:
        """Return random words, uint32."""
        return Array(self._words((shape,) if isinstance(shape, int) else tuple(shape)))

    def uniform(
        self, shape: int | tuple[int, ...] = (), low: float = 0.0, high: float = 1.0
    ) -> Array:
        """Return numbers from low to below high, float32, of 24 random bits each."""
        unit = self._unit((shape,) if isinstance(shape, int) else tuple(shape))
        if (low, high) == (0.0, 1.0):
            return Array(unit)
        return Array(unit) * (high - low) + low

    def normal(
        self, shape: int | tuple[int, ...] = (), mean: float = 0.0, std: float = 1.0
    ) -> Array:
        """Return numbers of a normal distribution, float32 (Box & Muller 1958)."""
        sizes = (shape,) if isinstance(shape, int) else tuple(shape)
        radius = build.row("sqrt", [self._scaled(self._log_of(sizes), -2.0)])
        angle = self._scaled(self._unit(sizes), 2 * pi)
        result = Array(build.row("multiply", [radius, build.row("cos", [angle])]))
        return result if (mean, std) == (0.0, 1.0) else result * std + mean

    def integers(self, low: int, high: int, shape: int | tuple[int, ...] = ()) -> Array:
        """Return integers from low to below high, int32; the bias is below (high - low) / 2**32."""
        if not -(1 << 31) <= low < high <= 1 << 31:
            raise ShapeError("integers", "low below high, within int32", f"{low}, {high}")
        words = self.bits(shape)._node
        span = build.number((high - low) & 0xFFFFFFFF, words.dtype, words.device)
        result = words if high - low == 1 << 32 else build.row("remainder", [words, span])
        whole = build.cast(result, dtypes.named("int32"))
        return Array(build.row("add", [whole, build.number(low, whole.dtype, whole.device)]))

    def _words(self, shape: tuple[int, ...]) -> Node:
        """Return the next stream: a call's number is the key's high half, so streams differ."""
        self._calls += 1
        unsigned = dtypes.named("uint32")
        if prod(shape) > 1 << 32:
            raise ShapeError("random", "at most 2**32 numbers", str(shape))
        low = self._seed & 0xFFFFFFFF
        high = ((self._seed >> 32) ^ (self._calls * 0x9E3779B1)) & 0xFFFFFFFF
        keys = [build.number(each, unsigned, self._device) for each in (low, high)]
        return build.row("philox", [build.iota(shape, self._device, "uint32"), *keys])

    def _unit(self, shape: tuple[int, ...]) -> Node:
        words = self._words(shape)
        shift = build.number(8, words.dtype, words.device)
        high = build.cast(build.row("bitwise_right_shift", [words, shift]), dtypes.named("float32"))
        return self._scaled(high, 2.0**-24)

    def _log_of(self, shape: tuple[int, ...]) -> Node:
        """Return the logarithm of numbers above 0 and up to 1."""
        unit = self._unit(shape)
        return build.row(
            "log", [build.row("add", [unit, build.number(2.0**-25, unit.dtype, unit.device)])]
        )

    def _scaled(self, node: Node, factor: float) -> Node:
        return build.row("multiply", [node, build.number(factor, node.dtype, node.device)])
