"""A small GGUF model of many types, and what has to be in memory once it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bascule.backend.host_arrays import ReferenceStore
from bascule.base.dtypes import BlockType
from bascule.program.blocks import BlockMatrix
from bascule.program.program import Parameter
from bascule.weights.gguf_stream import load_gguf_weights, read_gguf
from bascule.weights.source import Source
from tests.weights.gguf_files import model_file, nbytes_of

FILE = "model.gguf"
# Odd: its edges cut through numbers and blocks. The file has 8 chunks.
CHUNK = 65_537
TENSORS: dict[str, tuple[BlockType, tuple[int, ...]]] = {
    "output_norm.weight": (BlockType.F32, (30_001,)),
    "token_embd.weight": (BlockType.Q8_0, (51, 544)),  # 867 blocks: 2 bytes past a multiple of 4
    "q.weight": (BlockType.Q4_1, (64, 256)),
    "k.weight": (BlockType.Q4_1, (32, 256)),
    "v.weight": (BlockType.Q4_1, (32, 256)),
    "half": (BlockType.F16, (101, 333)),  # an odd number of float16
    "upper": (BlockType.BF16, (7, 64)),
    "down.weight": (BlockType.Q6_K, (33, 768)),
    "unused": (BlockType.Q5_K, (3, 256)),
    "large.weight": (BlockType.Q4_0, (400, 1024)),
}
PARAMETERS = (
    Parameter("embed", (51, 544), ("token_embd.weight",), dtype="q8_0"),
    Parameter("qkv", (128, 256), ("q.weight", "k.weight", "v.weight"), dtype="q4_1"),
    Parameter("wide", (101, 333), ("half",)),
    Parameter("kept", (101, 333), ("half",), dtype="f16"),
    Parameter("upper", (7, 64), ("upper",)),
    Parameter("down", (33, 768), ("down.weight",), dtype="q6_k"),
    Parameter("large", (400, 1024), ("large.weight",), dtype="q4_0"),
    Parameter("norm", (30_001,), ("output_norm.weight",)),
)


def tensors(seed: int) -> dict[str, bytes]:
    """The bytes of each tensor. Floats are numbers; blocks may be anything."""
    rng = np.random.default_rng(seed)
    made = {name: rng.bytes(nbytes_of(*result)) for name, result in TENSORS.items()}
    made["half"] = rng.standard_normal(101 * 333).astype(np.float16).tobytes()
    made["output_norm.weight"] = rng.standard_normal(30_001).astype(np.float32).tobytes()
    return made


def gguf_bytes(seed: int, keys: Sequence[bytes] = ()) -> bytes:
    """The whole file; of all seeds the same header."""
    made = tensors(seed)
    return model_file({name: (*result, made[name]) for name, result in TENSORS.items()}, keys)


def expected(seed: int) -> dict[str, bytes]:
    """What each parameter's memory holds: padded to 4 bytes with zeros."""
    result = tensors(seed)
    upper = np.frombuffer(result["upper"], np.uint16).astype(np.uint32) << 16
    wanted = {
        "embed": result["token_embd.weight"],
        "qkv": result["q.weight"] + result["k.weight"] + result["v.weight"],
        "wide": np.frombuffer(result["half"], np.float16).astype(np.float32).tobytes(),
        "kept": result["half"],
        "upper": upper.tobytes(),
        "down": result["down.weight"],
        "large": result["large.weight"],
        "norm": result["output_norm.weight"],
    }
    return {name: raw + bytes(-len(raw) % 4) for name, raw in wanted.items()}


def poisoned() -> ReferenceStore:
    """Full of what no padding and no tensor is."""
    store = ReferenceStore(PARAMETERS)
    for name in store.arrays:
        memory(store, name).fill(0xEE)
    return store


def memory(store: ReferenceStore, name: str) -> np.ndarray:
    array = store.arrays[name]
    raw = array.data if isinstance(array, BlockMatrix) else array
    return np.asarray(raw).reshape(-1).view(np.uint8)


def assert_is(store: ReferenceStore, seed: int) -> None:
    for name, wanted in expected(seed).items():
        assert memory(store, name).tobytes() == wanted, name


async def load(
    source: Source, *, on_bytes: Callable[[int], None] | None = None, file: str = FILE
) -> ReferenceStore:
    store = poisoned()
    notify = None if on_bytes is None else lambda p: on_bytes(p.done)
    try:
        header = await read_gguf(source, file)
        await load_gguf_weights(source, file, header, PARAMETERS, store, progress=notify)
    finally:
        await source.settle()
        source.release()
    return store
