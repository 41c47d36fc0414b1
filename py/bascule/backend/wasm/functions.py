"""The ops that kernels compute; each takes and gives what its namesake in `reference.py` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from bascule.backend import reference
from bascule.backend.quant import BlockMatrix
from bascule.backend.wasm.kernels import Array, Kernels
from bascule.program.ops import ACTIVATIONS
from bascule.program.parts import Part, part_from


class WasmFunctions:
    """The ops of one backend, and the scratch memory that they share."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._scratch = kernels.empty((0,))

    def table(self) -> Mapping[str, Callable[..., Array]]:
        """Every op's function: numpy's where no kernel is."""
        own = (
            self.linear,
            self.gated_linear,
            self.layer_norm,
            self.rms_norm,
            self.attention,
            self.attention_part,
            self.activate,
            self.add,
            self.multiply,
        )
        return {**reference.FUNCTIONS, **{f.__name__: f for f in own}}

    def linear(
        self,
        x: Array,
        weight: Array | BlockMatrix,
        bias: Array | None = None,
        residual: Array | None = None,
        *,
        activation: str = "none",
    ) -> Array:
        """See `reference.linear`."""
        blocks = isinstance(weight, BlockMatrix)
        kernel, data = ("block_linear", weight.data) if blocks else ("linear", weight)
        columns, inner = weight.shape
        y = self._kernels.empty((*x.shape[:-1], columns))
        scratch = self._room(self._kernels.call(f"{kernel}_scratch", inner))
        kind = (int(weight.type),) if blocks else ()
        sizes = (*kind, prod(x.shape[:-1]), columns, inner, ACTIVATIONS.index(activation))
        self._kernels.call(kernel, y, x, data, bias, residual, scratch, *sizes)
        return y

    def gated_linear(self, x: Array, weight: Array | BlockMatrix, *, activation: str) -> Array:
        """See `reference.gated_linear`."""
        both = self.linear(x, weight)
        columns = weight.shape[0] // 2
        y = self._kernels.empty((*x.shape[:-1], columns))
        rows = prod(x.shape[:-1])
        self._kernels.call("gate", y, both, rows, columns, ACTIVATIONS.index(activation))
        return y

    def layer_norm(
        self, x: Array, weight: Array, bias: Array, residual: Array | None = None, *, eps: float
    ) -> Array:
        """See `reference.layer_norm`."""
        y = self._kernels.empty(x.shape)
        sizes = (prod(x.shape[:-1]), x.shape[-1], eps)
        self._kernels.call("layer_norm", y, x, weight, bias, residual, *sizes)
        return y

    def rms_norm(self, x: Array, weight: Array, *, eps: float) -> Array:
        """See `reference.rms_norm`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("rms_norm", y, x, weight, prod(x.shape[:-1]), x.shape[-1], eps)
        return y

    def attention(self, qkv: Array, lengths: Array, *, heads: int) -> Array:
        """See `reference.attention`."""
        whole = Part(heads, heads, 0, heads, 0, qkv.shape[1], 0, heads)
        return self._attention(qkv, lengths, None, whole)

    def attention_part(
        self, qkv: Array, lengths: Array, onto: Array | None = None, /, **attributes: int
    ) -> Array:
        """See `reference.attention_part`."""
        return self._attention(qkv, lengths, onto, part_from(attributes))

    def _attention(self, qkv: Array, lengths: Array, onto: Array | None, part: Part) -> Array:
        batch, tokens, packed = qkv.shape
        size, queries = packed // 3 // part.n_kept, part.queries(tokens)
        y = self._kernels.empty((batch, tokens, part.heads * size)) if onto is None else onto
        scratch = self._room(self._kernels.call("attention_scratch", tokens, size))
        sizes = (batch, tokens, part.heads, part.n_kept, size, part.n_heads)
        where = (part.first_head - part.first_kept, part.first_head, part.first_query, queries)
        self._kernels.call("attention", y, qkv, lengths, scratch, *sizes, *where)
        return y

    def activate(self, x: Array, *, kind: str) -> Array:
        """See `reference.activate`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("activate", y, x, x.size, ACTIVATIONS.index(kind))
        return y

    def add(self, x: Array, y: Array) -> Array:
        """See `reference.add`."""
        sum = self._kernels.empty(x.shape)
        self._kernels.call("add", sum, x, y, x.size, y.size)
        return sum

    def multiply(self, x: Array, y: Array) -> Array:
        """See `reference.multiply`."""
        product = self._kernels.empty(x.shape)
        self._kernels.call("multiply", product, x, y, x.size)
        return product

    def _room(self, n: int) -> Array:
        """Scratch memory of at least `n` floats; kept, and only ever one."""
        if self._scratch.size < n:
            self._scratch = self._kernels.empty((n,))
        return self._scratch
