"""What lies in the weight stores of the tiers without a device."""

from __future__ import annotations

from typing import Any

import numpy as np

from bascule.backend.wasm.store import WasmStore
from bascule.backend.wasm.tensor import Blocks
from bascule.program.blocks import BlockMatrix


def in_memory(store: Any) -> dict[str, np.ndarray] | None:
    """Each parameter's bytes as uint8 (n,); None for a store on a GPU."""
    weights = store.tensors if isinstance(store, WasmStore) else getattr(store, "arrays", None)
    if weights is None:
        return None
    return {name: _bytes_of(weight) for name, weight in weights.items()}


def _bytes_of(weight: Any) -> np.ndarray:
    data = weight.data if isinstance(weight, Blocks | BlockMatrix) else weight
    return np.asarray(data).reshape(-1).view(np.uint8)
