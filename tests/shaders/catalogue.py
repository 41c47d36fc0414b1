"""One call of every row and variant of the kernel table, for compilers to chew on.

A test file's own function `catalogued` adds the calls of the ops that it tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import get_args

from bascule.array.rows import ROWS
from bascule.backend.webgpu.gpu import AdapterInfo
from bascule.backend.webgpu.kernel import Kernel
from bascule.backend.webgpu.kernels import candidates
from bascule.backend.webgpu.quantizer import PARTS
from bascule.base.dtypes import DType
from bascule.program.graph import Graph
from bascule.program.ops import ACTIVATIONS, POOLINGS, ROTARY_PAIRS
from tests.shaders.harness import KINDS, disguise


def _calls() -> Graph:
    graph = Graph("catalogue")
    ids, lengths = graph.input("ids", (2, 8), "u32"), graph.input("lengths", (2,), "u32")
    table, row = graph.input("table", (9, 24)), graph.input("row", (24,))
    for position in (None, table):
        for bias in (None, row):
            before = graph.call("embedding", ids, table, position, bias)
            graph.call("embedding", ids, table, position, bias, before, first=9, whole=18)
    for inner in (24, 25):
        for rows in (4, 64):
            x, w = (
                graph.input(f"x{inner}{rows}", (rows, inner)),
                graph.input(f"w{inner}", (24, inner)),
            )
            for activation in ACTIVATIONS:
                for bias in (None, row):
                    graph.call("linear", x, w, bias, activation=activation)
    _blocks(graph)
    x = graph.input("x", (2, 8, 24))
    for residual in (None, x):
        graph.call("layer_norm", x, row, row, residual, eps=1e-5)
    qkv = graph.input("qkv", (2, 8, 72))
    for heads in (2, 3, 8):
        graph.call("attention", qkv, lengths, heads=heads)
    for kind in POOLINGS:
        for skipped in (None, lengths):
            graph.call("pool", x, lengths, skipped, kind=kind)
    for kind in ACTIVATIONS:
        graph.call("activate", x, kind=kind)
    graph.call("l2_normalise", x, eps=1e-12)
    graph.call("add", x, row)
    _text_calls(graph)
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        if "def catalogued(" in path.read_text():
            import_module(f"tests.shaders.{path.stem}").catalogued(graph)
    return graph


def _text_calls(graph: Graph) -> None:
    x, row = graph.input("text", (5, 24)), graph.input("text_row", (24,))
    graph.call("multiply", x, x)
    graph.call("scale", x, by=2.0)
    graph.call("softcap", x, cap=30.0)
    graph.call("concat", x, x, x)
    graph.call("concat", *[x] * 7)
    graph.call("rms_norm", x, row, eps=1e-5)
    window = {"k_height": 2, "k_width": 3, "stride_y": 2, "stride_x": 1, "pad_y": 1, "pad_x": 0}
    image = graph.input("image", (2, 5, 6, 3))
    graph.call("patches", image, **window, first=0, lines=0)
    position = graph.state("position", (1,), "u32")
    heads = {"heads": 4, "kv_heads": 2, "size": 16}
    for dtype in ("f32", "f16"):
        cache = graph.state(f"cache_{dtype}", (16, 64), dtype)
        for tokens in (1, 9):
            qkv = graph.input(f"packed{dtype}{tokens}", (tokens, 128))
            angles = graph.input(f"angles{dtype}{tokens}", (260, 16))
            for pairs in ROTARY_PAIRS:
                q = graph.call("rope_append", qkv, cache, angles, position, pairs=pairs, **heads)
            graph.call("cached_attention", q, cache, position, window=0, **heads)
            graph.call("cached_attention", q, cache, position, window=0, softcap=5.0, **heads)
    logits, tokens = graph.input("logits", (1, 99)), graph.state("tokens", (16,), "u32")
    settings = graph.state("settings", (8,), "u32")
    graph.call("argmax_token", logits, tokens, position)
    kinds, rules = graph.state("kinds", (99,), "u32"), graph.state("rules", (4,), "u32")
    graph.call("allowed_token", logits, tokens, position, kinds, rules, times=90)
    graph.call("penalise", logits, tokens, position, settings)
    graph.call("sample_token", logits, tokens, position, settings)


def _blocks(graph: Graph) -> None:
    """Each format with each kernel, each epilogue with one format: large kernels compile slowly."""
    few, some, many = (graph.input(f"x{rows}", (rows, 512)) for rows in (1, 5, 64))
    bias, odd = graph.input("blocks_bias", (24,)), graph.input("odd", (1, 30))
    tokens, position = graph.state("tokens", (9,), "u32"), graph.state("position", (1,), "u32")
    ids, wide = graph.input("blocks_ids", (2, 3), "u32"), graph.input("blocks_row", (512,))
    for dtype in get_args(DType):
        if dtype not in ("u32", "i32"):
            weight = graph.parameter(dtype, (24, 512), dtype=dtype)
            taken = graph.call("token_embedding", weight, tokens, position, length=4)
            second = {"first": 24, "whole": 48}
            graph.call("token_embedding", weight, tokens, position, taken, length=4, **second)
            taken = graph.call("embedding", ids, weight, None, wide)
            graph.call("embedding", ids, weight, None, wide, taken, **second)
            op = "gated_linear" if dtype == "f32" else "linear"  # the kernels of both are the same
            graph.call(op, some, weight, activation="none")
    weight = graph.parameter("weight", (24, 512), dtype="q4_1")
    graph.call("gated_linear", many, weight, activation="silu")
    y = graph.call("linear", few, weight, bias, activation="gelu")
    graph.call("linear", few, weight, bias, y, activation="none")
    graph.call("gated_linear", odd, graph.parameter("odd_weight", (24, 30)), activation="silu")


def served_by_none() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Shaders that serve no call, with their parts: states.py copies, quantizer.py quantizes."""
    yield "copy", ()
    for parts in PARTS.values():
        yield "quantize", parts


def array_files() -> set[str]:
    """Skeletons and parts of generated kernels; tests/array compiles them with every row."""
    parts = {part for row in ROWS.values() for part in row.parts} | {"array_core"}
    skeletons = ("elementwise", "reduce", "best", "scan", "sort", "sort_three", "fft", "chirp")
    return {f"array_{name}.wgsl" for name in skeletons} | {f"parts/{part}.wgsl" for part in parts}


def every_kernel(adapter: AdapterInfo) -> Iterator[Kernel]:
    """Each kernel that some call may be served with on this compiler, once."""
    seen: set[object] = set()
    for kind in KINDS:
        for call in _calls().calls:
            for kernel in candidates(call, disguise(adapter, kind)):
                if kernel.key not in seen:
                    seen.add(kernel.key)
                    yield kernel
