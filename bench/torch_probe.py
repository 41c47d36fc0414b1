"""What bench/arrays.py runs after arrays_probe.py for torch-pyodide, which waits by JSPI."""

from __future__ import annotations

import time
from typing import Any

import torch
from js import Float32Array
from pyodide.ffi import to_js
from torch import _runtime, _tensor_runtime_bridge

from __main__ import chain, kept, numbers


def _tensor(*of: Any) -> Any:
    """The same numbers, handed to torch's runtime as a typed array."""
    key = ("torch", *of)
    if key not in kept:
        given = numbers(*of)
        data = Float32Array.new(given.size)
        data.assign(given.reshape(-1))
        shape = to_js(list(given.shape))
        made = _runtime._get_runtime().tensorFromData(data, shape, "float32")
        kept[key] = _tensor_runtime_bridge._mk_tensor(_runtime._run_js_awaitable(made))
    return kept[key]


def n_body(p: Any, v: Any) -> Any:
    """One step of all pairs, softened; the new positions."""
    n = p.shape[0]
    apart = p.reshape(1, n, 3) - p.reshape(n, 1, 3)
    near = torch.sum(apart * apart, dim=2, keepdim=True) + 0.01
    pull = torch.sum(apart / (near * torch.sqrt(near)), dim=1)
    return p + (v + pull * 0.001) * 0.001


WORK: dict[str, Any] = {
    "copy": lambda n: (lambda x: x * 1.5, [("x", n)]),
    "chain": lambda n: (chain, [("x", n)]),
    "sum": lambda n: (lambda x: torch.sum(x, dim=1), [("x", n // 1000, 1000)]),
    "softmax": lambda n: (lambda x: torch.softmax(x, dim=1), [("x", n // 1000, 1000)]),
    "matmul": lambda n: (torch.matmul, [("a", n, n), ("b", n, n)]),
    "matvec": lambda n: (torch.matmul, [("a", n, n), ("b", n)]),
    "sort": lambda n: (lambda x: torch.sort(x)[0], [("x", n)]),
    "nbody": lambda n: (n_body, [("p", n, 3), ("v", n, 3)]),
}


async def once(tier: str, what: str, n: int) -> dict[str, Any]:
    """Milliseconds of one run, and a few numbers of its result; torch has one tier."""
    work, inputs = WORK[what](n)
    tensors = [_tensor(*each) for each in inputs]
    (tensors[0].reshape(-1)[:1] + 1.0).tolist()  # everything before is done
    began = time.perf_counter()
    head = work(*tensors).reshape(-1)[:3].tolist()
    return {"ms": 1e3 * (time.perf_counter() - began), "head": head}
