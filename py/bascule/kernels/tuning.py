"""Choose a kernel's override constants by measuring, once per machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite, prod
from typing import Any

from bascule.backend.webgpu.choices import Choices, machine_key
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.base.arguments import described
from bascule.errors import InputError

MAX_CANDIDATES = 64

Constants = dict[str, float]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The result of tuning a kernel.

    `constants` are used from now on, `times_ms` are the times of the candidates, `refused` why some
    could not run. `remembered`: an earlier run has measured them.
    """

    constants: Mapping[str, float]
    times_ms: Sequence[tuple[Mapping[str, float], float]] = ()
    refused: Sequence[tuple[Mapping[str, float], str]] = ()
    remembered: bool = False


def candidates(over: Mapping[str, Sequence[float]], label: str) -> list[Constants]:
    """Return every combination of the values; InputError for none, and for more than 64."""
    where = f"{label}, over"
    if not isinstance(over, Mapping) or not over:
        raise InputError(where, 'constants with values, {"WORKGROUP": [32, 64]}', described(over))
    for name, values in over.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise InputError(f"{where}, {name}", "a list of values", described(values))
    n = prod(len(values) for values in over.values())
    if n > MAX_CANDIDATES:
        raise InputError(where, f"at most {MAX_CANDIDATES} combinations", f"{n:,}")
    return [dict(zip(over, values, strict=True)) for values in product(*over.values())]


def tuning_key(wgsl: str, entry: str, candidates: Sequence[Constants], sizes: object) -> str:
    """Return a key of what was measured: source, candidates, and sizes of the arguments."""
    identity = json.dumps([wgsl, entry, candidates, sizes], default=str)
    return hashlib.sha256(identity.encode()).hexdigest()[:24]


async def recalled(
    choices: Choices, adapter: AdapterInfo, key: str, among: Sequence[Constants]
) -> Constants | None:
    """Return the choice of an earlier run, if it is still a candidate."""
    entry = await choices.remembered.get(_place(adapter)) or {}
    result: Any = entry.get(key)
    if not isinstance(result, dict):
        return None
    return next((each for each in among if each == result), None)


async def remember(choices: Choices, adapter: AdapterInfo, key: str, chosen: Constants) -> None:
    """Store a choice for the next run; old ones are dropped if there are very many."""
    entry = await choices.remembered.get(_place(adapter)) or {}
    known = {name: value for name, value in entry.items() if name != key}
    while len(known) >= _MAX_KEPT:
        known.pop(next(iter(known)))
    sound = {name: value for name, value in chosen.items() if isfinite(value)}
    await choices.remembered.put(_place(adapter), {**known, key: sound})


_MAX_KEPT = 500


def _place(adapter: AdapterInfo) -> str:
    return f"kernels {machine_key(adapter)}"
