"""Prove kernels: before its first use each computes a trial, which is compared with numpy.

If a driver or a browser's compiler miscompiles a kernel there is no error, only wrong numbers. So
the chosen kernels run a trial once per adapter (see `trials`). A kernel that passes is stored with
the choices and not tried again; one that fails is treated like one that does not compile: the
call's next candidate replaces it. All pending trials run at once, so a page waits for one read and
not for each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from math import prod
from time import perf_counter

from bascule.backend.base import WeightStore
from bascule.backend.tracing import TOLERANCE as TOLERANCE
from bascule.backend.webgpu.gpu import Gpu
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates
from bascule.backend.webgpu.lowering import TapeExecutable
from bascule.backend.webgpu.pipelines import Fault, Pipelines
from bascule.backend.webgpu.states import GpuStates
from bascule.backend.webgpu.trials import Trial, family, trial_of
from bascule.base.arrays import Array, np, numpy_ready
from bascule.base.waiting import all_or_first_error
from bascule.errors import DeviceLostError, GpuError, GpuOutOfMemoryError
from bascule.program.program import Call, Parameter


class KernelProver:
    """Proves kernels on one device; `store` allocates memory for parameters there."""

    def __init__(
        self,
        gpu: Gpu,
        pipelines: Pipelines,
        store: Callable[[Sequence[Parameter]], WeightStore],
    ) -> None:
        self._gpu = gpu
        self._pipelines = pipelines
        self._store = store
        self._passed: set[Hashable] = set()
        self.n_trials = 0
        self.n_unproven = 0  # kernels that serve without a trial, for want of numpy
        self.spent_s = 0.0

    async def faults(
        self, calls: Sequence[Call], kernels: Sequence[Kernel], *, cut: bool = True
    ) -> list[Fault]:
        """Return which of the compiled `kernels`, one per call, compute wrong numbers, and by how
        much.

        With `cut` kernels that are already proven here are skipped; without, each runs at the sizes
        of its call, however long that takes.
        """
        due: dict[str, tuple[Call, Kernel]] = {}
        proven = self._pipelines.choices.proven
        for call, kernel in zip(calls, kernels, strict=True):
            shapes = tuple(o.shape if o else None for o in call.operands)
            quick = kernel.key, call.op, call.attributes, shapes
            if cut and quick in self._passed:
                continue
            key = _key(call, kernel)
            if cut and key in proven:
                self._passed.add(quick)
                continue
            known = due.get(key)
            if known is None or _rows(call) > _rows(known[0]):
                due[key] = call, kernel
        if not due:
            return []
        if not await numpy_ready():  # what is right cannot be computed
            self.n_unproven += len(due)
            return []
        began = perf_counter()
        results: dict[str, Fault | None] = {}

        async def work(key: str, call: Call, kernel: Kernel) -> None:
            results[key] = await self._fault(call, kernel, cut=cut)

        jobs = [work(key, *pair) for key, pair in due.items()]
        # Full-size trials are as large as a model's weights: one at a time.
        for together in [jobs] if cut else [[job] for job in jobs]:
            await all_or_first_error(together)
        self.n_trials += len(due)
        self.spent_s += perf_counter() - began
        self._pipelines.choices.note_proven(key for key, fault in results.items() if fault is None)
        return [fault for fault in results.values() if fault is not None]

    async def _fault(self, call: Call, kernel: Kernel, *, cut: bool) -> Fault | None:
        """Return what is wrong with a kernel, if anything is."""
        trial, same = self._trial(call, kernel, cut=cut)
        try:
            result = await self._run(trial, same)
        except (DeviceLostError, GpuOutOfMemoryError):
            raise
        except GpuError as error:
            return Fault(kernel, error.problem, wrong=False)
        worst = max(deviation(mine, right) for mine, right in await trial.compared(result))
        if worst <= TOLERANCE:
            return None
        problem = f"its numbers are off by {worst:.2g}, and {TOLERANCE:.2g} is allowed"
        if not np.isfinite(worst):
            problem = "it gave numbers that are not finite"
        return Fault(kernel, problem, wrong=True)

    def _trial(self, call: Call, kernel: Kernel, *, cut: bool) -> tuple[Trial, Kernel]:
        """Return the trial, and the same shader for it; full-size if it cannot be smaller."""
        if cut:
            trial = trial_of(call)
            for candidate in candidates(trial.call, self._gpu.adapter):
                if candidate.digest == kernel.digest:
                    return trial, candidate
        return trial_of(call, cut=False), kernel

    async def _run(self, trial: Trial, kernel: Kernel) -> list[Array]:
        """Return the result, then the states that the call changes."""
        program, sizes = trial.program, trial.sizes
        store = self._store(program.parameters)
        states = GpuStates(self._gpu, program.states, sizes)
        executable: TapeExecutable | None = None
        try:
            inputs = trial.put(store, states)
            executable = TapeExecutable(
                self._gpu, self._pipelines, program, [kernel], store, states
            )
            result = list((await executable.run(sizes, inputs)).values())
            for value in trial.updated:
                result.append(np.empty_like(trial.data(value)))
                await states.read(value.name, 0, result[-1].data)
            return result
        finally:
            if executable is not None:
                executable.close()
            states.close()
            store.close()


def deviation(result: Array, expected: Array) -> float:
    """Return the largest deviation relative to the expected RMS; inf for NaN."""
    wide = expected.astype(np.float64)
    scale = float(np.sqrt(np.mean(np.square(wide)))) or 1.0
    worst = float(np.max(np.abs(result.astype(np.float64) - wide), initial=0.0))
    return worst / scale if np.isfinite(worst) and result.shape == expected.shape else float("inf")


def _key(call: Call, kernel: Kernel) -> str:
    """Return the key of a shader in its use for such calls."""
    return hashlib.sha256(f"{kernel.digest} {family(call)}".encode()).hexdigest()[:24]


def _rows(call: Call) -> int:
    first = call.operands[0]
    return prod(first.limits) if first else 0
