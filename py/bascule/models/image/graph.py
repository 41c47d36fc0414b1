"""Image encoders that cut an image into patches, and layers that normalize before each part.

In the order of the computation. B images, patches of P x P pixels, T positions (the class token's
and one per patch), hidden size C, inner size I.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bascule.base.dtypes import DType
from bascule.models.image.bicubic import bicubic
from bascule.models.image.config import ImageConfig, LayersConfig
from bascule.models.layers import matrix
from bascule.program.graph import Graph
from bascule.program.program import Computed, Value

_CHANNELS = 3
_QUICK = 1.702  # quick_gelu: x * sigmoid(1.702 * x)


@dataclass(frozen=True, slots=True)
class LayerNames:
    """A family's names: of a layer, with "{}" for its number, and of its parts.

    If a family scales what a part adds to x, `mixed_scale` and `down_scale` name the factors.
    """

    layer: str
    before: str
    query: str
    key: str
    value: str
    mixed: str
    after: str
    up: str
    down: str
    mixed_scale: str = ""
    down_scale: str = ""


@dataclass(frozen=True, slots=True)
class Normalization:
    """How a model normalizes a pixel's channels, 0 to 255: (x * factor - mean) / std."""

    factor: float = 1 / 255
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Layers:
    """Layers that are being recorded; `weights` is the dtype of stored matrices."""

    graph: Graph
    config: LayersConfig
    names: LayerNames
    weights: DType = "f32"

    def linear(
        self, x: Value, n: int, name: str, residual: Value | None = None, *, biased: bool = True
    ) -> Value:
        """Record x (..., K) -> (..., N)."""
        k = x.shape[-1]
        assert isinstance(k, int)  # only B and T are Dims
        weight = matrix(self.graph, f"{name}.weight", (n, k), self.weights)
        bias = self.graph.parameter(f"{name}.bias", (n,)) if biased else None
        return self.graph.call("linear", x, weight, bias, residual, activation="none")

    def norm(self, x: Value, name: str) -> Value:
        """Record the layer norm over C."""
        sizes = (self.config.hidden,)
        weight, bias = (self.graph.parameter(f"{name}.{part}", sizes) for part in _WEIGHT_BIAS)
        return self.graph.call("layer_norm", x, weight, bias, eps=self.config.eps)

    def activated(self, x: Value) -> Value:
        """Record the activation of the feed-forward part."""
        call, kind = self.graph.call, self.config.activation
        if kind != "quick_gelu":
            return call("activate", x, kind=kind)
        y = call("activate", call("scale", x, by=_QUICK), kind="silu")
        return call("scale", y, by=1 / _QUICK)

    def record(self, x: Value, mix: Callable[[Value, LayerNames], Value]) -> Value:
        """Record all layers (B, T, C) -> (B, T, C); `mix` records a layer's attention."""
        for layer in range(self.config.layers):
            names = self.named(layer)
            y = mix(self.norm(x, names.before), names)
            x = self._added(x, y, names.mixed, names.mixed_scale)
            y = self.linear(self.norm(x, names.after), self.config.inner, names.up)
            x = self._added(x, self.activated(y), names.down, names.down_scale)
        return x

    def attended(self, lengths: Value) -> Callable[[Value, LayerNames], Value]:
        """Return a function that records attention between the first lengths[b] positions."""
        c, heads = self.config.hidden, self.config.heads

        def mix(x: Value, names: LayerNames) -> Value:
            parts = (names.query, names.key, names.value)
            tensors = [f"{part}.weight" for part in parts]
            name = f"{names.layer}.qkv"
            weight = matrix(self.graph, f"{name}.weight", (3 * c, c), self.weights, *tensors)
            bias = self.graph.parameter(f"{name}.bias", (3 * c,), *(f"{p}.bias" for p in parts))
            qkv = self.graph.call("linear", x, weight, bias, activation="none")
            return self.graph.call("attention", qkv, lengths, heads=heads)

        return mix

    def _added(self, x: Value, y: Value, name: str, scale: str) -> Value:
        """Record x + scale * (y's linear layer)."""
        c, call = self.config.hidden, self.graph.call
        if not scale:
            return self.linear(y, c, name, x)
        factors = self.graph.parameter(scale, (c,))
        return call("add", call("multiply", self.linear(y, c, name), factors), x)

    def named(self, layer: int) -> LayerNames:
        """Return the full names of a layer's parts."""
        name, parts = self.names.layer.format(layer), self.names
        each = (parts.before, parts.query, parts.key, parts.value, parts.mixed)
        each = (*each, parts.after, parts.up, parts.down, parts.mixed_scale, parts.down_scale)
        return LayerNames(name, *(part and f"{name}.{part}" for part in each))


@dataclass(frozen=True, slots=True)
class ImageEncoderGraph:
    """An image encoder that is being recorded: pixels (B, S, S, 3) from 0 to 255, for a fixed B."""

    graph: Graph
    config: ImageConfig
    batch: int
    normalization: Normalization
    weights: DType = "f32"

    def lengths(self) -> Value:
        """Declare the input `lengths` (B) u32, which holds T."""
        return self.graph.input("lengths", (self.batch,), "u32")

    def positions(self, projection: str, token: str, table: str, *, biased: bool) -> Value:
        """Record pixels -> embeddings of the class token, if any, and of all patches (B, T, C)."""
        graph, cut, c = self.graph, self.config.cut, self.config.layers.hidden
        n, b, inner = cut.patches, self.batch, cut.patch**2
        x = graph.reshape(self._normalized(), (b, cut.image, cut.image, _CHANNELS))
        window = {"k_height": cut.patch, "k_width": cut.patch}
        step = {"stride_y": cut.patch, "stride_x": cut.patch, "pad_y": 0, "pad_x": 0}
        x = graph.call("patches", x, **window, **step, first=0, lines=0)  # (B*N, P*P*3)
        x = graph.reshape(x, (b * n, inner, _CHANNELS))
        x = graph.call("transpose", x, axes="021")  # a weight's rows are (3, P, P)
        x = graph.reshape(x, (b * n, _CHANNELS * inner))
        weight = graph.parameter(f"{projection}.weight", (c, _CHANNELS * inner))
        bias = graph.parameter(f"{projection}.bias", (c,)) if biased else None
        x = graph.call("linear", x, weight, bias, activation="none")  # (B*N, C)
        if cut.token:
            y = self.repeated(token)
            x = graph.call("concat", graph.reshape(y, (b, c)), graph.reshape(x, (b, n * c)))
        x = graph.reshape(x, (b, cut.places, c))
        if cut.table == cut.side:
            return graph.call("add", x, graph.parameter(table, (cut.places, c)))
        return graph.call("add", x, self._resized(table))

    def repeated(self, row: str) -> Value:
        """Declare the input `first` (B, 1) u32, which holds zeros: a row (1, C) -> (B, 1, C)."""
        graph, c = self.graph, self.config.layers.hidden
        first = graph.input("first", (self.batch, 1), "u32")
        return graph.call("embedding", first, graph.parameter(row, (1, c)))

    def _resized(self, table: str) -> Value:
        """Record positions for images of another size (T, C): resized bicubically."""
        graph, cut, c = self.graph, self.config.cut, self.config.layers.hidden
        n, side = cut.table, cut.side
        weights = Computed(numbers=bicubic(n, side))
        matrix = graph.parameter("position_weights", (side, n), computed=weights)
        places = graph.parameter(f"{table}.patches", (n * n, c), table, rows=n * n, first=1)
        x = graph.call("transpose", places, axes="10")  # (C, rows * columns)
        x = graph.call("linear", graph.reshape(x, (c * n, n)), matrix, activation="none")
        x = graph.call("transpose", graph.reshape(x, (c, n, side)), axes="021")
        x = graph.call("linear", x, matrix, activation="none")  # (C, columns, rows)
        x = graph.call("transpose", x, axes="021")
        x = graph.call("transpose", graph.reshape(x, (c, side * side)), axes="10")
        first = graph.parameter(f"{table}.class", (1, c), table, rows=1)
        x = graph.call("concat", first, graph.reshape(x, (1, side * side * c)))
        return graph.reshape(x, (cut.places, c))

    def _normalized(self) -> Value:
        """Record pixels -> normalized channels (B * S * S, 3), as a product with a diagonal."""
        size, norm, graph = self.config.cut.image, self.normalization, self.graph
        pixels = graph.input("pixels", (self.batch, size, size, _CHANNELS))
        rows = graph.reshape(pixels, (self.batch * size * size, _CHANNELS))
        scale = [norm.factor / std for std in norm.std]
        diagonal = [scale[i] if i == j else 0.0 for i in range(3) for j in range(3)]
        shift = [-mean / std for mean, std in zip(norm.mean, norm.std, strict=True)]
        weight = graph.parameter("channel_scale", (3, 3), computed=Computed(numbers=(*diagonal,)))
        bias = graph.parameter("channel_shift", (3,), computed=Computed(numbers=(*shift,)))
        return graph.call("linear", rows, weight, bias, activation="none")


_WEIGHT_BIAS = ("weight", "bias")
