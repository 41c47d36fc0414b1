"""What bench/arrays.py runs in the page's Python: arrays and numpy, one contestant at a time."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import bascule
import bascule.array as xp

_devices: dict[str, Any] = {}
kept: dict[Any, Any] = {}  # inputs, as numpy's arrays and on each tier


def numbers(name: str, *shape: int) -> Any:
    """Numbers in [0, 1) that array-peers.js makes, too."""
    key = (name, *shape)
    if key not in kept:
        at = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32(ord(name))
        words = at * np.uint32(2654435761)
        kept[key] = (words.astype(np.float64) / 2**32).astype(np.float32).reshape(shape)
    return kept[key]


def chain(x: Any) -> Any:
    """Eight operations an element."""
    for i in range(4):
        x = x * 1.0001 + i * 0.5
    return x


def softmax(m: Any, x: Any) -> Any:
    """Of each row."""
    weight = m.exp(x - m.max(x, axis=1, keepdims=True))
    return weight / m.sum(weight, axis=1, keepdims=True)


def n_body(m: Any, p: Any, v: Any) -> Any:
    """One step of all pairs, softened; the new positions."""
    apart = p[None, :, :] - p[:, None, :]
    near = m.sum(apart * apart, axis=2, keepdims=True) + 0.01
    pull = m.sum(apart / (near * m.sqrt(near)), axis=1)
    return p + (v + pull * 0.001) * 0.001


WORK: dict[str, Any] = {
    "copy": lambda m, n: (lambda x: x * 1.5, [("x", n)]),
    "chain": lambda m, n: (chain, [("x", n)]),
    "sum": lambda m, n: (lambda x: m.sum(x, axis=1), [("x", n // 1000, 1000)]),
    "softmax": lambda m, n: (lambda x: softmax(m, x), [("x", n // 1000, 1000)]),
    "matmul": lambda m, n: (lambda a, b: a @ b, [("a", n, n), ("b", n, n)]),
    "matvec": lambda m, n: (lambda a, b: a @ b, [("a", n, n), ("b", n)]),
    "sort": lambda m, n: (m.sort, [("x", n)]),
    "nbody": lambda m, n: (lambda p, v: n_body(m, p, v), [("p", n, 3), ("v", n, 3)]),
    "fft": lambda m, n: (lambda a, b: _fft(m, a, b), [("a", n), ("b", n)]),
}


def _fft(m: Any, real: Any, imag: Any) -> Any:
    if m is np:
        return np.fft.fft(real + 1j * imag)
    return m.fft.fft(m.fft.ComplexPair(real, imag)).real


async def once(tier: str, what: str, n: int) -> dict[str, Any]:
    """Milliseconds of one run on a tier, or of numpy, and a few numbers of its result."""
    work, inputs = WORK[what](np if tier == "numpy" else xp, n)
    given = [numbers(*each) for each in inputs]
    if tier == "numpy":
        began = time.perf_counter()
        result = work(*given)
        took = time.perf_counter() - began
        return {"ms": 1e3 * took, "head": _head(np.real(result).reshape(-1)[:3])}
    if tier not in _devices:
        _devices[tier] = await bascule.open_device(tier)
    device = _devices[tier]
    keys = [(tier, *each) for each in inputs]
    for key, each in zip(keys, given, strict=True):
        if key not in kept:
            kept[key] = device.asarray(each)
    arrays = [kept[key] for key in keys]
    await xp.eval(*arrays)
    await (arrays[0][:1] + 1.0).numpy()  # everything before is done
    began = time.perf_counter()
    result = work(*arrays)
    head = await xp.reshape(result, (-1,))[:3].numpy()
    return {"ms": 1e3 * (time.perf_counter() - began), "head": _head(head)}


def _head(values: Any) -> list[float]:
    return [float(each) for each in values]


def forget() -> None:
    """Drop all inputs: the next size is another one."""
    kept.clear()
