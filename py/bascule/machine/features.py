"""Features by the names that programs ask for: whether a machine has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bascule.errors import InputError
from bascule.machine.capabilities import Capabilities

# "compute_shaders" needs more than an adapter: a dispatch with the right result.
FEATURES: Mapping[str, Callable[[Capabilities], object]] = {
    "webgpu": lambda has: has.has_adapter,
    "compute_shaders": lambda has: has.dispatch,
    "shader_f16": lambda has: "shader-f16" in (has.features or ()),
    "subgroups": lambda has: "subgroups" in (has.features or ()),
    "timestamp_query": lambda has: "timestamp-query" in (has.features or ()),
    "webnn": lambda has: has.webnn,
    "wasm_simd": lambda has: has.wasm_simd,
    "wasm_relaxed_simd": lambda has: has.wasm_relaxed_simd,
    "threads": lambda has: has.threads,
    "jspi": lambda has: has.jspi,
    "opfs": lambda has: has.opfs,
    "indexeddb": lambda has: has.indexeddb,
}


def has_feature(machine: Capabilities, name: str) -> bool:
    """Whether a feature was found; unknown counts as missing. InputError for another name."""
    if name not in FEATURES:
        raise InputError("feature", f"one of {', '.join(FEATURES)}", repr(name))
    return bool(FEATURES[name](machine))
