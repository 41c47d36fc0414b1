"""Parameters that are computed from the config and stored in no file."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import cos, prod, sin

from bascule.backend.base import WeightStore
from bascule.program.program import Computed, Parameter


def write_computed(parameters: Sequence[Parameter], store: WeightStore) -> list[Parameter]:
    """Write the computed parameters into the store; return those that come from files."""
    for parameter in parameters:
        if parameter.computed is not None:
            numbers = computed_numbers(parameter.computed, parameter.shape)
            store.write(store.targets[parameter.name], 0, numbers)
            if store.arrivals is not None:
                store.arrivals.mark([parameter.name])
    return [parameter for parameter in parameters if parameter.computed is None]


def computed_numbers(computed: Computed, shape: tuple[int, ...]) -> array[float]:
    """Return zeros, the given numbers, or the angles' cosines and sines (P, D), float32."""
    numbers = array("f", computed.numbers)
    if computed.numbers:
        return numbers
    if computed.theta is None:
        numbers.frombytes(bytes(4 * prod(shape)))
        return numbers
    positions, size = shape
    frequencies = [computed.theta ** (-i / size) for i in range(0, size, 2)]
    for position in range(positions):
        angles = [position * frequency for frequency in frequencies]
        numbers.extend(map(cos, angles))
        numbers.extend(map(sin, angles))
    return numbers
