"""Hints for missing capabilities."""

from __future__ import annotations

_NO_GPU = 'Use tier="auto": it takes the best tier that works here.'
_HINTS = {
    "neural_network_support": _NO_GPU,
    "matrix_multiplication": "Update the browser: every one since 2023 has WASM SIMD.",
    "convolution_support": "Update the browser: every one since 2023 has WASM SIMD.",
    "graph_api": 'Use tier="auto": no operation needs WebNN, it is one tier of several.',
    "ane_support": 'Use tier="auto": no page reaches an NPU without WebNN.',
    "hardware_adapter": "Switch hardware acceleration on in the browser's settings, or install a "
    "driver for the GPU.",
    "minimum_memory_mb": "Use a smaller or more strongly quantized model, or close other tabs.",
    "minimum_storage_mb": "Free space with `bascule cache rm`, or allow the page to store more.",
    "subgroup_size": "Use a kernel that works without subgroups: there is one for each.",
    "dispatch": "Update the graphics driver, or use a tier that needs no GPU.",
    "threads": "Serve the page with the headers Cross-Origin-Opener-Policy: same-origin and "
    "Cross-Origin-Embedder-Policy: require-corp, as `bascule serve` does.",
    "jspi": "Await the coroutine instead of calling it synchronously.",
    "opfs": "Leave private browsing; without it models are kept in the Cache API or IndexedDB.",
    "opfs_sync": "Run in a worker: no browser has such handles in the page itself.",
    "indexeddb": "Leave private browsing; without it nothing is remembered between visits.",
    "compute_pressure": "Not supported on this platform: Bascule works at full speed throughout.",
    "wasm_simd": "Update the browser: every one since 2023 has it.",
    "wasm_relaxed_simd": "Use the plain SIMD kernels: they give the same answer.",
    "shader-f16": "Keep weights and activations in float32.",
    "float16": "Keep weights and activations in float32.",
    "subgroups": "Use a kernel that works without subgroups: there is one for each.",
}


def hint_for(capability: str) -> str:
    """Return one sentence; a general one for a limit or feature without its own."""
    return _HINTS.get(capability, f"Ask for less of it, or let the work be split. {_NO_GPU}")
