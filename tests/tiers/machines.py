"""Machines as a survey would find them, with speeds that a test knows."""

from __future__ import annotations

from bascule.backend.base import Tier
from bascule.choosing.speeds import Kind, Sample, Speeds
from bascule.choosing.survey import Survey, TierFacts


def planted(
    name: Tier, *, overhead_s: float = 0.0, per_work_s: float = 1e-9, software: bool = False
) -> TierFacts:
    """A tier that needs `overhead_s` a run and `per_work_s` for each unit of work."""
    works: dict[Kind, tuple[int, ...]] = {
        "product": (10**3, 10**6, 10**9),
        "pass": (10**2, 10**4, 10**6),
        "blocks": (10**6,),
    }
    samples = {
        kind: tuple(Sample(w, overhead_s + w * per_work_s, w * per_work_s) for w in row)
        for kind, row in works.items()
    }
    device = f"planted {name}"
    return TierFacts(name, "", device, software, f"{device} 1.0", speeds=Speeds(samples))


# A GPU that is a hundred times as fast, once its millisecond is spent.
GPU = planted("webgpu", overhead_s=1e-3, per_work_s=1e-11)
CPU = planted("cpu")
FAST_GPU = Survey((GPU, CPU))
# One that the CPU imitates, and worse than it does its own work.
SOFTWARE_GPU = Survey((planted("webgpu", overhead_s=1e-3, per_work_s=1e-8, software=True), CPU))
