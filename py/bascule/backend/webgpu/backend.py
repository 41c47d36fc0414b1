"""The WebGPU tier: waist 1 on top of a driver."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bascule.backend.arrivals import Arrivals
from bascule.backend.base import StateStore, Tier, WeightStore, check_names
from bascule.backend.memory import MemoryBudget, MemoryKind, MemoryUse, PassBytes
from bascule.backend.profile import Profile, ShaderLog, joined
from bascule.backend.tracing import Tracer
from bascule.backend.tuning import TuneReport
from bascule.backend.webgpu.autotune import tune
from bascule.backend.webgpu.choices import Choices, signature
from bascule.backend.webgpu.computation import GpuComputation
from bascule.backend.webgpu.gpu import AdapterInfo, Gpu, gpu_tier
from bascule.backend.webgpu.kernels import candidates, select
from bascule.backend.webgpu.lowering import TapeExecutable, held_nbytes, lower
from bascule.backend.webgpu.needed import digest_of, remember_pipelines
from bascule.backend.webgpu.pipelines import Pipelines
from bascule.backend.webgpu.proving import KernelProver
from bascule.backend.webgpu.quantizer import LANES, GpuQuantizer, quantizing
from bascule.backend.webgpu.simplified import simplified
from bascule.backend.webgpu.states import GpuStates
from bascule.backend.webgpu.streamed import StreamedStore, lower_streamed
from bascule.backend.webgpu.trials import family, trial_of
from bascule.base.dtypes import DType
from bascule.base.entries import Remembered
from bascule.base.progress import ProgressCallback
from bascule.base.turns import DeviceTurns
from bascule.errors import InputError
from bascule.program.rewrites.rewrite import Limits

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from bascule.program.program import Parameter, Program, Value


class GpuStore:
    """A `WeightStore` of GPU buffers, one per parameter; a target is a buffer handle."""

    def __init__(self, gpu: Gpu, parameters: Sequence[Parameter]) -> None:
        self._gpu = gpu
        self.page_bridge: Any | None = getattr(gpu, "bridge", None)
        self.targets: dict[str, int] = {}
        self.arrivals: Arrivals | None = None
        self.streaming = None
        self.nbytes = sum(p.nbytes for p in parameters)
        try:
            for parameter in parameters:
                self.targets[parameter.name] = gpu.alloc(parameter.nbytes, kind="weights")
        except Exception:
            self.close()
            raise

    def write(self, target: int, offset: int, data: Buffer) -> None:
        self._gpu.write(target, offset, data)

    def close(self) -> None:
        for buffer in self.targets.values():
            if not self._gpu.lost:
                self._gpu.free(buffer)
        self.targets.clear()


class WebGpuBackend:
    """A `Backend` that runs programs as tapes on a device."""

    def __init__(self, gpu: Gpu, choices: Choices | None = None) -> None:
        self.gpu = gpu
        self.turns = DeviceTurns()
        self.tier: Tier = gpu_tier(gpu.adapter.limited)
        self.device_name = gpu.adapter.name
        self.choices = choices or Choices()
        self.pipelines = Pipelines(gpu, self.choices)
        self.prover: KernelProver | None = None
        self._quantizing: dict[DType, int] = {}

    def prove_kernels(self) -> None:
        """See `Backend.prove_kernels`."""
        if self.prover is None:
            self.prover = KernelProver(self.gpu, self.pipelines, self.store)
            self.pipelines.prover = self.prover.faults

    def rejected(self, programs: Iterable[Program]) -> list[str]:
        """See `Backend.rejected`: kernels with wrong numbers, and how many have had no trial."""
        unproven = self.prover.n_unproven if self.prover else 0
        steps = (
            [f"{unproven} kernels have had no trial: numpy is not installed"] if unproven else []
        )
        return steps + self._wrong_of(programs)

    def _wrong_of(self, programs: Iterable[Program]) -> list[str]:
        wrong = {digest: f for digest, f in self.choices.failed.items() if f.wrong}
        if not wrong:
            return []
        calls = {signature(call): call for program in programs for call in program.calls}
        results: dict[str, str] = {}
        for call in calls.values():
            for kernel in candidates(call, self.gpu.adapter):
                failure = wrong.get(kernel.digest)
                if failure is None:
                    break  # the one that serves
                results.setdefault(failure.variant, failure.messages[0][1])
        return [f"{variant} was rejected: {problem}" for variant, problem in results.items()]

    @property
    def adapter(self) -> AdapterInfo:
        return self.gpu.adapter

    @property
    def memory(self) -> MemoryUse:
        return self.gpu.memory

    def mark_memory(self) -> None:
        self.gpu.mark_memory()

    def pass_nbytes(self, program: Program) -> PassBytes:
        """See `Backend.pass_nbytes`; includes trials of the kernels that may be chosen."""
        calls = {family(call): call for call in program.calls}
        trials = [trial_of(call).program for call in calls.values()]
        return PassBytes(
            held_nbytes(self.gpu, program),
            sum(value.nbytes for value in program.outputs),
            sum(_trial_nbytes(self.gpu, trial) for trial in trials),
        )

    def limit_memory(self, budget: MemoryBudget | None) -> None:
        """See `Backend.limit_memory`: every buffer counts."""
        self.gpu.limit_memory(budget)

    @property
    def remembered(self) -> Remembered:
        return self.choices.remembered

    @property
    def wrong_kernels(self) -> list[str]:
        return sorted({f.variant for f in self.choices.failed.values() if f.wrong})

    async def simplified(self, program: Program) -> list[str]:
        return await simplified(self.pipelines, self.gpu.adapter, program.calls)

    @property
    def lost(self) -> str:
        return self.gpu.lost

    @property
    def limits(self) -> Limits:
        """See `Backend.limits`: every tensor is one buffer and one binding."""
        granted = self.gpu.adapter.limits
        nbytes = min(granted["maxStorageBufferBindingSize"], granted["maxBufferSize"])
        return Limits(binding_nbytes=nbytes)

    def store(self, parameters: Sequence[Parameter]) -> GpuStore:
        return GpuStore(self.gpu, parameters)

    def streamed_store(self, parameters: Sequence[Parameter], slot_nbytes: int) -> StreamedStore:
        """See `Backend.streamed_store`: two slots, one is filled while the other is read."""
        return StreamedStore(self.gpu, parameters, slot_nbytes)

    async def quantizer(
        self,
        store: WeightStore,
        parameters: Sequence[Parameter],
        *,
        staging_nbytes: int,
        max_blocks: int,
    ) -> GpuQuantizer:
        for parameter in parameters:
            dtype = parameter.dtype
            if dtype not in self._quantizing:
                linked = quantizing(dtype)
                self._quantizing[dtype] = await self.gpu.pipeline(
                    linked.wgsl, {"WORKGROUP": LANES}, linked.bindings, "quantize.wgsl"
                )
        quantizer = GpuQuantizer(
            self.gpu, self._quantizing, store, parameters, staging_nbytes, max_blocks
        )
        try:
            await self.gpu.granted(quantizer.buffers)
        except BaseException:
            quantizer.close()
            raise
        return quantizer

    def states(
        self, values: Sequence[Value], sizes: Mapping[str, int], *, kind: MemoryKind = "states"
    ) -> GpuStates:
        return GpuStates(self.gpu, values, sizes, kind)

    async def computation(self, program: Program) -> GpuComputation:
        kernels = await self.pipelines.kernels_for(program.calls)
        return GpuComputation(self.gpu, self.pipelines, program, kernels)

    async def prepare(
        self, program: Program, weights: WeightStore, states: StateStore | None = None
    ) -> TapeExecutable:
        check_names(program)
        if states is not None and not isinstance(states, GpuStates):
            raise InputError("prepare", "states of this backend", type(states).__name__)
        if isinstance(weights, StreamedStore):
            return await lower_streamed(self.gpu, self.pipelines, program, weights, states)
        return await lower(self.gpu, self.pipelines, program, weights, states)

    def fingerprint(self, programs: Iterable[Program]) -> str:
        """See `Backend.fingerprint`."""
        calls = {signature(call): call for program in programs for call in program.calls}
        adapter = self.gpu.adapter
        digests = sorted({select(c, adapter, self.choices).digest for c in calls.values()})
        return hashlib.sha256("".join(digests).encode()).hexdigest()[:16]

    async def recheck(self, programs: Iterable[Program]) -> bool:
        """See `Backend.recheck`: for a wrong answer though every small trial was right."""
        calls = [call for program in programs for call in program.calls]
        kernels = await self.pipelines.kernels_for(calls)
        prover = self.prover or KernelProver(self.gpu, self.pipelines, self.store)
        faults = await prover.faults(calls, kernels, cut=False)
        for fault in faults:
            self.choices.note_failure(fault.kernel, [(0, fault.problem)], wrong=fault.wrong)
        await self.choices.save()
        return bool(faults)

    async def warm(self, programs: Iterable[Program], name: str = "") -> int:
        # Many calls are equal: a model of 6 layers has each of its calls 6 times per bucket.
        calls = {signature(call): call for program in programs for call in program.calls}
        kernels = {k.key: k for k in await self.pipelines.kernels_for(list(calls.values()))}
        if name:
            distinct = list(kernels.values())
            adapter, digest = self.gpu.adapter, digest_of(calls.values())
            await remember_pipelines(self.pipelines, adapter, name, digest, distinct)
        return len(kernels)

    async def tune(
        self,
        programs: Iterable[Program],
        *,
        budget_s: float,
        progress: ProgressCallback | None = None,
    ) -> TuneReport:
        """See `Backend.tune`: measures which kernels serve these programs best here."""
        return await tune(self.gpu, self.pipelines, programs, budget_s=budget_s, progress=progress)

    @property
    def stats(self) -> dict[str, float]:
        """See `Backend.stats`: bytes, objects, calls of the driver, pipelines and kernels."""
        pipelines = self.pipelines
        return {
            "gpu_nbytes": self.gpu.allocated_nbytes,
            "gpu_objects": self.gpu.n_objects,
            "crossings": self.gpu.crossings,
            "pipelines": len(pipelines),
            "pipelines_early": self.gpu.n_early_pipelines,
            "pipelines_failed": pipelines.n_failed,
            "pipeline_retries_of_failed": pipelines.n_retries_of_failed,
            "variants_known_failed": len(self.choices.failed),
            "kernels_tried": 0 if self.prover is None else self.prover.n_trials,
            "proof_ms": 0.0 if self.prover is None else 1e3 * self.prover.spent_s,
            "signatures_tuned": len(self.choices.tuned),
        }

    def log_shaders(self) -> None:
        if self.pipelines.log is None:
            self.pipelines.log = []

    @property
    def shader_logs(self) -> Sequence[ShaderLog]:
        return tuple(self.pipelines.log or ())

    def trace_with(self, tracer: Tracer | None) -> str:
        if tracer is not None and self.pipelines.tracer is not None:
            raise InputError("trace", "a device that is not traced", "one that is")
        self.pipelines.tracer = tracer
        return ""

    async def start_profile(self) -> None:
        """See `Backend.start_profile`: dispatches are timed by the GPU if it has timestamps."""
        await self.gpu.start_profile()

    async def stop_profile(self) -> Profile:
        return joined(await self.gpu.stop_profile(), self.pipelines.names)

    def done(self) -> Awaitable[None]:
        return self.gpu.done()

    def trim(self) -> int:
        return 0 if self.gpu.lost else self.gpu.trim()

    def close(self) -> None:
        self.gpu.destroy()


def _trial_nbytes(gpu: Gpu, trial: Program) -> int:
    """Return the bytes of a trial's run: the program, its operands, and staging for its results."""
    operands = (*trial.parameters, *trial.states)
    read = (*trial.outputs, *trial.states)
    return held_nbytes(gpu, trial) + sum(value.nbytes for value in (*operands, *read))
