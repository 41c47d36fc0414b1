"""Vision features on numpy arrays: an image's patch embedding, as patches and a matrix product."""

from __future__ import annotations

from typing import Any

from bascule.base.arrays import np
from bascule.compat.fallback.operation_work import Axis, Division, Request, Span, Work, single
from bascule.errors import InputError
from bascule.program.graph import Graph


def feature_extraction(request: Request) -> Work:
    """Convolve image (H, W, C) or (B, H, W, C) with weight (N, KH, KW, C), add bias (N).

    Gives (H', W', N) or (B, H', W', N) float32. The context has "stride", by default the window
    (patches that do not overlap), and the zero "padding", by default 0: a number, or (rows,
    columns).
    """
    image = request.floats("image", ndims=(3, 4))
    weight = request.floats("weight", ndims=(4,))
    bias = request.optional_floats("bias", ndims=(1,))
    names = ["image", "weight", *(["bias"] if bias is not None else [])]
    fits = image.shape[-1] == weight.shape[3] and (bias is None or len(bias) == len(weight))
    request.require(fits, "image (..., H, W, C), weight (N, KH, KW, C), bias (N)", *names)
    stride_y, stride_x = _pair(request, "stride", weight.shape[1:3], minimum=1)
    pad_y, pad_x = _pair(request, "padding", (0, 0), minimum=0)
    images = image.reshape(-1, *image.shape[-3:])
    graph = Graph(request.operation.name)
    x = graph.call(
        "patches",
        graph.input("image", images.shape),
        k_height=weight.shape[1],
        k_width=weight.shape[2],
        stride_y=stride_y,
        stride_x=stride_x,
        pad_y=pad_y,
        pad_x=pad_x,
        first=0,
        lines=0,
    )
    flat = weight.reshape(len(weight), -1)
    weights = {"weight": flat} if bias is None else {"weight": flat, "bias": bias}
    parameters = [graph.parameter(name, array.shape) for name, array in weights.items()]
    result = graph.call("linear", x, *parameters, activation="none")
    height = (image.shape[-3] + 2 * pad_y - weight.shape[1]) // stride_y + 1
    shape = (*image.shape[:-3], height, -1, len(weight))
    program, finish = single(graph, result, lambda y: y.reshape(shape))
    return Work(program, {"image": images}, finish, weights)


def divide_image(request: Request) -> Division:
    """Divide a convolution by images, and by rows of features with the rows of their windows."""
    image, weight = request.floats("image", ndims=(3, 4)), request.floats("weight", ndims=(4,))
    stride_y, stride_x = _pair(request, "stride", weight.shape[1:3], minimum=1)
    pad_y, pad_x = _pair(request, "padding", (0, 0), minimum=0)
    images = image.reshape(-1, *image.shape[-3:])
    padded = np.pad(images, ((0, 0), (pad_y, pad_y), (0, 0), (0, 0)))
    height = (padded.shape[1] - weight.shape[1]) // stride_y + 1
    width = (images.shape[2] + 2 * pad_x - weight.shape[2]) // stride_x + 1
    context = {**request.context, "padding": (0, pad_x), "stride": (stride_y, stride_x)}

    def piece(spans: tuple[Span, ...]) -> tuple[Request, Any]:
        batch, (first, end) = slice(*spans[0]), spans[1]
        rows = slice(first * stride_y, (end - 1) * stride_y + weight.shape[1])
        arrays = {**request.inputs, "image": padded[batch, rows]}
        return Request(request.operation, arrays, context, ()), (batch, slice(first, end))

    axes = (
        Axis("tiled_extraction", "images", len(images)),
        Axis("tiled_extraction", "rows of the features", height),
    )
    shape = (height, width, len(weight))
    return Division(axes, piece, (*image.shape[:-3], *shape), (len(images), *shape))


def _pair(
    request: Request, name: str, default: tuple[int, ...], *, minimum: int
) -> tuple[int, int]:
    result: Any = request.context.get(name, default)
    pair = result if isinstance(result, tuple | list) else (result, result)
    integers = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in pair)
    if len(pair) != 2 or not integers or min(pair) < minimum:
        expected = f"a whole number of at least {minimum}, or two of them"
        raise InputError(f"{request.where}, context {name!r}", expected, repr(result)[:80])
    return int(pair[0]), int(pair[1])
