"""Prove a model on its device: what is checked when, what happens after a wrong answer, what is
stored.

Two layers, both on by default (`load(..., prove=False)` or BASCULE_PROVE=0 switch them off):

1. Every kernel of the WebGPU tiers answers a small trial before it is used (see
   `backend/webgpu/proving.py`): a wrong one is replaced by the call's next candidate. That needs
   no weights, so it holds for every model, and runs while the weights still load.
2. A model that Bascule knows by name then answers its stored sample (see `tasks/proof.py`). If that
   is wrong though every kernel was right, the kernels of its passes run again at full size; then a
   float16 KV cache is replaced by float32; then the tier by the next one that "auto" would choose.
   A tier that was named is not replaced: that is an error.

A passed proof is stored with the adapter's other facts, for these files, formats and kernels: later
loads skip it, until one of them or the driver changes. If every tier, including numpy, gives the
same wrong answer, the weights are wrong and not the device. The CPU tier is the reference, and runs
the sample only then.
"""

# pyright: reportPrivateUsage=false
# Proving a model uses its private parts.
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
_MAX_KEPT = 32


def is_wanted(asked: bool | None) -> bool:
    """Whether to prove: by the argument, else by the environment, else yes."""
    return os.environ.get(SWITCH, "").strip().lower() not in _OFF if asked is None else asked


@dataclass
class ModelProver:
    """Proves the answers of one loaded model; `weights` is the format of its floats."""

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
        # numpy is the reference for the others; it runs only if one of them was wrong.
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
        last = dict(list(others.items())[-_MAX_KEPT:])
        await memory.put(key, {"proven": {**last, content: deviation}})

    async def _right(self, model: LoadedModel, sample: Sample, allowed: float) -> float:
        """Return the deviation once it is allowed; replaces kernels, then a float16 cache."""
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
        """See `model.proof.Prover`: if numpy has the same answer, the weights are wrong."""
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
        """Return a text that changes with the files, formats, sample and kernels."""
        backend, parts = model.backend, [repr(sorted(known_hashes(self.name).items())), str(sample)]
        programs = model._sample_programs(sample)
        parts += [f"{p.name} {p.dtype}" for p in all_parameters(programs)]
        parts += [f"{s.name} {s.dtype}" for s in programs[0].states]
        parts += filter(None, [backend.fingerprint(programs)])
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


async def _memory_of(backend: Backend) -> tuple[Remembered, str]:
    """Return where a device's outcome is stored, and under what key."""
    memory = backend.remembered or await open_remembered()
    return memory, f"proof {backend.tier} {__version__} {identity_of(backend)}"
