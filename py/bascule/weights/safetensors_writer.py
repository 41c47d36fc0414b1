"""Write a safetensors file tensor by tensor; `weights.safetensors` reads it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from bascule.weights.safetensors import TensorInfo

_PIECE_NBYTES = 4 << 20
# Tensors are aligned as the safetensors library aligns them.
_ALIGNMENT = 8


async def write_safetensors(
    path: Path,
    tensors: Iterable[TensorInfo],
    read: Callable[[int, int], Awaitable[bytes]],
    notify: Callable[[int, int], None],
) -> None:
    """Write tensors to a new file, in their order, with 4 MiB in memory at a time.

    `read` returns bytes by offset and count; `notify` gets the bytes written and the total. Raises
    OSError if the file cannot be written, and what `read` raises.
    """
    listed = list(tensors)
    total, done = sum(tensor.nbytes for tensor in listed), 0
    with path.open("xb") as sink:
        sink.write(_header(listed))
        for tensor in listed:
            for at in range(0, tensor.nbytes, _PIECE_NBYTES):
                count = min(_PIECE_NBYTES, tensor.nbytes - at)
                sink.write(await read(tensor.start + at, count))
                done += count
                notify(done, total)


def _header(tensors: Iterable[TensorInfo]) -> bytes:
    entries: dict[str, Mapping[str, Any]] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        end = at + tensor.nbytes
        entries[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % _ALIGNMENT)
    return len(raw).to_bytes(8, "little") + raw
