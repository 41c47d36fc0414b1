"""Memory that ends: the system's for this process, and a device's by a budget."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bascule.backend.webgpu.gpu_native import NativeGpu

MIB = 1 << 20


@contextmanager
def memory_left(nbytes: int) -> Iterator[None]:
    """The system gives this process so much more address space and no byte beyond it."""
    held = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + nbytes, held[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, held)


@contextmanager
def device_memory(gpu: NativeGpu, budget_nbytes: int) -> Iterator[list[int]]:
    """A device with that much memory: past it, it is asked for what the system refuses it, so that
    the error is its own. Gives the sizes that were refused.
    """
    device: Any = gpu._device
    create = device.create_buffer
    refused: list[int] = []

    def create_buffer(*, size: int, usage: str) -> Any:
        if gpu.allocated_nbytes + size <= budget_nbytes:
            return create(size=size, usage=usage)
        refused.append(size)
        with memory_left(MIB):
            return create(size=1 << 30, usage=usage)

    device.create_buffer = create_buffer
    try:
        yield refused
    finally:
        del device.create_buffer
