"""Proving a model on its device: what is checked when, what a wrong answer costs, what is kept.

Two layers, both on by default (`load(..., prove=False)` or BASCULE_PROVE=0 switch them off):

1. Every kernel of the WebGPU tiers answers a small trial before it serves (see
   `backend/webgpu/proving.py`): one that is wrong gives way to the call's next candidate. That
   needs no weights, so it holds for every model, and runs while the weights still come.
2. A model that Bascule knows by name then answers its stored sample (see `tasks/proof.py`). If that
   is wrong though every kernel was right, the kernels of its passes run again at their full sizes;
   then a float16 KV cache is replaced by float32; then the tier by the next one that
   "auto" would take. A tier that was asked for by name is not replaced: that is an error.

What passed is kept with what else is known of the adapter, for these files, these formats and these
kernels: a later load asks nothing again, until one of them or the driver changes. Where every tier,
numpy among them, gives the same wrong answer, it is not the device that is wrong but the weights.
The CPU tier is the yardstick, and is asked for the sample only then.
"""

# pyright: reportPrivateUsage=false
# What proves a model uses what is nobody else's to use.
from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

from bascule import __version__
from bascule.backend.base import Backend, Tier
from bascule.base.dtypes import DType
from bascule.base.entries import Remembered
from bascule.base.remembered import open_remembered
from bascule.errors import BasculeError, ModelFileError, TierUnavailableError, WrongResultError
from bascule.machine.host import identity_of
from bascule.program.parameters import all_parameters
from bascule.program.program import Program
from bascule.tasks.loaded import LoadedModel
from bascule.tasks.proof import Sample, stored_samples
from bascule.tasks.registry import known_hashes

SWITCH = "BASCULE_PROVE"
_OFF = ("0", "false", "no", "off")
# Models that are remembered for one device.
_MOST_KEPT = 32


def is_wanted(asked: bool | None) -> bool:
    """Whether to prove: as asked for, else as the environment says, else yes."""
    return os.environ.get(SWITCH, "").strip().lower() not in _OFF if asked is None else asked


@dataclass
class ModelProver:
    """Proves the answers of one loaded model; `weights` is what its floats were made into."""

    name: str
    programs: Sequence[Program]
    weights: DType | None = None
    _answers: dict[Tier, Sequence[float]] = field(default_factory=dict[Tier, Sequence[float]])

    async def check(self, model: LoadedModel) -> None:
        """See `model.proof.Prover`."""
        began = perf_counter()
        backend = model.backend
        model._note_steps(backend.rejected(self.programs))
        sample = stored_samples().get(self.name)
        # Numpy is what the others are held against; it is asked where one of them was wrong.
        due = model.tier != "cpu" or model.wrong_tiers
        if sample is not None and due and model._holds(len(sample.ids)):
            await self._check_sample(model, sample)
        model.proof = replace(model.proof, ms=1e3 * (perf_counter() - began))

    async def _check_sample(self, model: LoadedModel, sample: Sample) -> None:
        allowed = sample.allowed(self.weights)
        expected = f"{len(sample.numbers)} numbers of the answer to {len(sample.ids)} tokens"
        model.proof = replace(model.proof, sample=expected, tolerance=allowed, remembered="")
        memory, key = await _memory_of(model.backend)
        content = self._content(model, sample)
        known: Any = (await memory.get(key) or {}).get("proven")
        stored: dict[str, Any] = known if isinstance(known, dict) else {}
        deviation = stored.get(content)
        if isinstance(deviation, float) and deviation <= allowed:
            model.proof = replace(model.proof, deviation=deviation, remembered=key)
            return
        deviation = await self._right(model, sample, allowed)
        model.proof = replace(model.proof, deviation=deviation)
        content = self._content(model, sample)  # what serves may be something else by now
        others = {name: n for name, n in stored.items() if name != content}
        last = dict(list(others.items())[-_MOST_KEPT:])
        await memory.put(key, {"proven": {**last, content: deviation}})

    async def _right(self, model: LoadedModel, sample: Sample, allowed: float) -> float:
        """The deviation once it is allowed; replaces kernels, then a float16 cache, on the way."""
        while True:
            result = await model._answer(sample)
            deviation = sample.deviation(result)
            if deviation <= allowed:
                return deviation
            problem = f"its stored sample is off by {deviation:.2g}, and {allowed:.2g} is allowed"
            rejected = await self._rejects_kernel(model, sample)
            if not rejected and not model._without_f16_cache(problem):
                self._answers[model.tier] = result
                raise WrongResultError(self.name, problem)

    async def _rejects_kernel(self, model: LoadedModel, sample: Sample) -> bool:
        backend = model.backend
        programs = model._sample_programs(sample)
        if not await backend.recheck(programs):
            return False
        model._prepare_anew()
        model._note_steps(backend.rejected(programs))
        return True

    def verdict(self, wrong: WrongResultError, none: TierUnavailableError) -> BasculeError:
        """See `model.proof.Prover`: the weights where numpy has the same answer as all others."""
        sample, mine = stored_samples().get(self.name), self._answers.get("cpu")
        if sample is None or mine is None:
            return wrong
        same = replace(sample, numbers=tuple(mine), tolerance=sample.allowed(self.weights))
        if any(same.deviation(result) > same.tolerance for result in self._answers.values()):
            return wrong
        tiers = ", ".join(self._answers)
        problem = (
            f"its weights are not those that it is known by: {wrong.found}, in the same way on "
            f"every tier that was tried ({tiers}), so the device is not at fault"
        )
        return ModelFileError(self.name, problem)

    def _content(self, model: LoadedModel, sample: Sample) -> str:
        """Changes with the files, the formats, the sample and the kernels that serve."""
        backend, parts = model.backend, [repr(sorted(known_hashes(self.name).items())), str(sample)]
        programs = model._sample_programs(sample)
        parts += [f"{p.name} {p.dtype}" for p in all_parameters(programs)]
        parts += [f"{s.name} {s.dtype}" for s in programs[0].states]
        parts += filter(None, [backend.fingerprint(programs)])
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


async def _memory_of(backend: Backend) -> tuple[Remembered, str]:
    """Where the outcome for a device is kept, and under what key."""
    memory = backend.remembered or await open_remembered()
    return memory, f"proof {backend.tier} {__version__} {identity_of(backend)}"
