"""llama.cpp as a contestant of bench/generation.py, run by a Python that has llama-cpp-python.

    PYTHON bench/llama_cpp_peer.py MODEL.gguf THREADS

Prints a line of JSON once the model is loaded. Each line {"ids", "most"} on its standard input is
one greedy generation without a past, answered by a line {"ids", "first_ms", "total_ms"}.
"""

from __future__ import annotations

import json
import sys
import time
from importlib.metadata import version
from itertools import islice
from typing import Any

from llama_cpp import Llama


def generation(model: Llama, ids: list[int], maximum: int) -> dict[str, Any]:
    """An end token does not end it: what counts is the time of `maximum` tokens."""
    model.reset()
    times: list[float] = []
    results: list[int] = []
    began = time.perf_counter()
    for token in islice(model.generate(ids, temp=0.0), maximum):
        times.append(1e3 * (time.perf_counter() - began))
        results.append(token)
    return {"ids": results, "first_ms": times[0], "total_ms": times[-1]}


def main() -> None:
    path, threads = sys.argv[1], int(sys.argv[2])
    model = Llama(path, n_ctx=512, n_threads=threads, n_threads_batch=threads, verbose=False)
    print(json.dumps({"version": version("llama-cpp-python")}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(generation(model, asked["ids"], asked["most"])), flush=True)


if __name__ == "__main__":
    main()
