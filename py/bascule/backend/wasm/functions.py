"""The ops that have kernels; each function has the signature of its op."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from bascule.backend.wasm.kernels import Kernels
from bascule.backend.wasm.tensor import Blocks, Tensor
from bascule.base.arrays import Array
from bascule.program.blocks import BlockMatrix
from bascule.program.ops import ACTIVATIONS
from bascule.program.ops.parts import part_from
from bascule.program.program import Call

Operand = Tensor | Array  # numpy arrays may be read, never written
Matrix = Operand | Blocks | BlockMatrix

# The kernels of pooling modes that have one.
POOLS = {"mean": "mean_pool", "cls": "first_pool"}


def has_kernel(call: Call) -> bool:
    """Whether a kernel computes the call of an op that has kernels."""
    if call.op != "pool":
        return True
    return dict(call.attributes)["kind"] in POOLS and call.operands[2] is None


class WasmFunctions:
    """The ops of one backend, and their shared scratch memory."""

    def __init__(self, kernels: Kernels) -> None:
        self._kernels = kernels
        self._scratch = kernels.empty((0,))

    def table(self) -> Mapping[str, Callable[..., Tensor]]:
        """Return the functions by op name."""
        own = (
            self.linear,
            self.gated_linear,
            self.layer_norm,
            self.rms_norm,
            self.attention,
            self.dot_product_attention,
            self.rope,
            self.pool,
            self.l2_normalise,
            self.activate,
            self.add,
            self.multiply,
            self.scale,
            self.softcap,
        )
        return {f.__name__: f for f in own}

    def linear(
        self,
        x: Operand,
        weight: Matrix,
        bias: Operand | None = None,
        residual: Operand | None = None,
        *,
        activation: str = "none",
    ) -> Tensor:
        """See `ops.linear`."""
        blocks = isinstance(weight, Blocks | BlockMatrix)
        kernel, data = ("block_linear", weight.data) if blocks else ("linear", weight)
        columns, inner = weight.shape
        y = self._kernels.empty((*x.shape[:-1], columns))
        scratch = self._room(self._kernels.call(f"{kernel}_scratch", inner))
        kind = (int(weight.type),) if blocks else ()
        sizes = (*kind, prod(x.shape[:-1]), columns, inner, ACTIVATIONS.index(activation))
        self._kernels.call(kernel, y, x, data, bias, residual, scratch, *sizes)
        return y

    def gated_linear(self, x: Operand, weight: Matrix, *, activation: str) -> Tensor:
        """See `ops.gated_linear`."""
        both = self.linear(x, weight)
        columns = weight.shape[0] // 2
        y = self._kernels.empty((*x.shape[:-1], columns))
        rows = prod(x.shape[:-1])
        self._kernels.call("gate", y, both, rows, columns, ACTIVATIONS.index(activation))
        return y

    def layer_norm(
        self,
        x: Operand,
        weight: Operand,
        bias: Operand,
        residual: Operand | None = None,
        *,
        eps: float,
    ) -> Tensor:
        """See `ops.layer_norm`."""
        y = self._kernels.empty(x.shape)
        sizes = (prod(x.shape[:-1]), x.shape[-1], eps)
        self._kernels.call("layer_norm", y, x, weight, bias, residual, *sizes)
        return y

    def rms_norm(self, x: Operand, weight: Operand, *, eps: float, plus: float = 0.0) -> Tensor:
        """See `ops.rms_norm`."""
        y = self._kernels.empty(x.shape)
        run = weight.shape[0]
        self._kernels.call("rms_norm", y, x, weight, prod(x.shape) // run, run, eps, plus)
        return y

    def attention(
        self, qkv: Operand, lengths: Operand, onto: Tensor | None = None, /, **attributes: int
    ) -> Tensor:
        """See `ops.attention`."""
        batch, tokens, packed = qkv.shape
        part = part_from(attributes, tokens)
        size, queries = packed // 3 // part.n_kept, part.queries(tokens)
        y = self._kernels.empty((batch, tokens, part.heads * size)) if onto is None else onto
        scratch = self._room(self._kernels.call("attention_scratch", tokens, size))
        sizes = (batch, tokens, part.heads, part.n_kept, size, part.n_heads)
        where = (part.first_head - part.first_kept, part.first_head, part.first_query, queries)
        self._kernels.call("attention", y, qkv, lengths, scratch, *sizes, *where)
        return y

    def dot_product_attention(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        lengths: Operand | None = None,
        bias: Operand | None = None,
        *,
        heads: int,
        kv_heads: int,
        causal: bool = False,
        window: int = 0,
        scale: float = 0.0,
    ) -> Tensor:
        """See `ops.dot_product_attention`."""
        (batch, queries, width), keys = q.shape, k.shape[1]
        size = width // heads
        y = self._kernels.empty(q.shape)
        scratch = self._room(self._kernels.call("dot_product_attention_scratch", keys, size))
        sizes = (batch, queries, keys, heads, kv_heads, size, int(causal), window)
        operands = (y, q, k, v, lengths, bias, scratch)
        factor = float(scale or size**-0.5)
        self._kernels.call("dot_product_attention", *operands, *sizes, factor)
        return y

    def rope(self, x: Operand, angles: Operand, *, size: int) -> Tensor:
        """See `ops.rope`."""
        y = self._kernels.empty(x.shape)
        batch, tokens, width = x.shape
        sizes = (batch, tokens, width // size, size, len(angles))
        self._kernels.call("rope", y, x, angles, *sizes)
        return y

    def pool(self, x: Operand, lengths: Operand, skipped: None = None, *, kind: str) -> Tensor:
        """See `ops.pool`; for the kinds in `POOLS`, without `skipped` (`has_kernel`)."""
        del skipped
        batch, tokens, columns = x.shape
        y = self._kernels.empty((batch, columns))
        self._kernels.call(POOLS[kind], y, x, lengths, batch, tokens, columns)
        return y

    def l2_normalise(self, x: Operand, *, eps: float) -> Tensor:
        """See `ops.l2_normalise`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("l2_normalise", y, x, prod(x.shape[:-1]), x.shape[-1], eps)
        return y

    def activate(self, x: Operand, *, kind: str) -> Tensor:
        """See `ops.activate`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("activate", y, x, x.size, ACTIVATIONS.index(kind))
        return y

    def add(self, x: Operand, y: Operand) -> Tensor:
        """See `ops.add`."""
        sum = self._kernels.empty(x.shape)
        self._kernels.call("add", sum, x, y, x.size, y.size)
        return sum

    def multiply(self, x: Operand, y: Operand) -> Tensor:
        """See `ops.multiply`."""
        product = self._kernels.empty(x.shape)
        self._kernels.call("multiply", product, x, y, x.size, y.size)
        return product

    def scale(self, x: Operand, *, by: float) -> Tensor:
        """See `ops.scale`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("scale", y, x, x.size, by)
        return y

    def softcap(self, x: Operand, *, cap: float) -> Tensor:
        """See `ops.softcap`."""
        y = self._kernels.empty(x.shape)
        self._kernels.call("softcap", y, x, x.size, cap)
        return y

    def _room(self, n: int) -> Tensor:
        """Return scratch memory of at least `n` floats, shared by all calls."""
        if self._scratch.size < n:
            self._scratch = self._kernels.empty((n,))
        return self._scratch
