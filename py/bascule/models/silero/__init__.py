"""Silero's voice activity detector (Silero Team 2021), its 16 kHz model.

A window is 512 samples after the 64 before them, with 64 of it mirrored at its end. Four spectra of
256 samples go through four convolutions over time and an LSTM, whose state passes from window to
window. Hidden size H.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from bascule.models.family import VoiceFamily, VoiceWindows
from bascule.program.graph import Graph
from bascule.program.program import Computed, Value
from bascule.weights.names import VOICE
from bascule.weights.safetensors import TensorInfo

_WINDOWS = VoiceWindows(samples=512, context=64, mirrored=64, frame=256, step=128)
_H = 128
_BINS = _WINDOWS.frame // 2 + 1
# Name, channels out and in, and stride of the convolutions.
_CONVOLUTIONS = (("conv1", 128, _BINS, 1), ("conv2", 64, 128, 2), ("conv3", 64, 64, 2))
_LAST = ("conv4", _H, 64, 1)
_WIDTH = 3

_TENSORS = (
    ("stft_conv.weight", (2 * _BINS, 1, _WINDOWS.frame)),
    *((f"{name}.weight", (n, c, _WIDTH)) for name, n, c, _ in (*_CONVOLUTIONS, _LAST)),
    *((f"{name}.bias", (n,)) for name, n, *_ in (*_CONVOLUTIONS, _LAST)),
    *((f"lstm_cell.weight_{source}", (4 * _H, _H)) for source in ("ih", "hh")),
    *((f"lstm_cell.bias_{source}", (4 * _H,)) for source in ("ih", "hh")),
    ("final_conv.weight", (1, _H, 1)),
    ("final_conv.bias", (1,)),
)


def _record(graph: Graph, count: int) -> None:
    per_window = _WINDOWS.frames
    frames = graph.input("frames", (count * per_window, _WINDOWS.frame))
    state = graph.input("state", (2 * _H,))
    lengths = graph.input("lengths", (1,), "u32")
    basis = graph.parameter("stft_conv.weight", (2 * _BINS, _WINDOWS.frame))
    x = graph.call("magnitude", graph.call("linear", frames, basis, activation="none"))
    for name, n, c, stride in (*_CONVOLUTIONS, _LAST):
        x = _convolution(graph, x, name, (count, per_window, n, c), stride)
        per_window = -(-per_window // stride)
    y = _memory(graph, x, state)  # (count, 2H)
    # The cell's half is unused.
    counted = graph.parameter("final_conv.weight", (1, _H))
    uncounted = graph.parameter("cell_weight", (1, _H), computed=Computed())
    weight = graph.call("concat", counted, uncounted)
    bias = graph.parameter("final_conv.bias", (1,))
    active = graph.call("activate", y, kind="relu")
    graph.output(graph.call("linear", active, weight, bias, activation="none"))
    steps = graph.reshape(y, (1, count, 2 * _H))
    graph.output(graph.call("pool", steps, lengths, kind="last"))


def _convolution(
    graph: Graph, x: Value, name: str, shape: tuple[int, int, int, int], stride: int
) -> Value:
    """Record rows of windows (W * T, C) -> (W * T', N), each window convolved over its own T."""
    count, length, n, c = shape
    transposed = graph.call("transpose", graph.reshape(x, (count, length, c)), axes="021")
    image = graph.reshape(transposed, (count, c, length, 1))
    places = {"stride_y": 1, "stride_x": stride, "pad_y": 0, "pad_x": 1, "first": 0, "lines": 0}
    seen = graph.call("patches", image, k_height=c, k_width=_WIDTH, **places)
    weight = graph.parameter(f"{name}.weight", (n, c * _WIDTH))
    bias = graph.parameter(f"{name}.bias", (n,))
    return graph.call("linear", seen, weight, bias, activation="relu")


def _memory(graph: Graph, x: Value, state: Value) -> Value:
    """Record windows (W, H) -> hidden state and cell after each (W, 2H)."""
    fresh, recurrent = (
        graph.parameter(f"lstm_cell.weight_{source}", (4 * _H, _H)) for source in ("ih", "hh")
    )
    first, second = (graph.parameter(f"lstm_cell.bias_{s}", (4 * _H,)) for s in ("ih", "hh"))
    gates = graph.call("linear", x, fresh, first, activation="none")
    gates = graph.call("add", gates, second)
    return graph.call("lstm", gates, graph.call("transpose", recurrent, axes="10"), state)


def _as_matrix(tensor: TensorInfo) -> TensorInfo:
    rows, *inner = tensor.shape
    return replace(tensor, shape=(rows, prod(inner))) if inner else tensor


SILERO = VoiceFamily(
    name="silero-vad",
    examples=VOICE,
    model_types=(),
    tensor_name=str,
    file=VOICE,
    tensors=_TENSORS,
    windows=_WINDOWS,
    state=2 * _H,
    record=_record,
    as_matrix=_as_matrix,
)
