"""The ops of language models that have kernels: weights in blocks, a KV cache, tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from bascule.backend.wasm.functions import Matrix, Operand, WasmFunctions
from bascule.backend.wasm.tensor import Blocks, Tensor
from bascule.base.arrays import np
from bascule.base.dtypes import BlockType
from bascule.program.blocks import BlockMatrix
from bascule.program.ops.parts import part_from


class LanguageFunctions(WasmFunctions):
    """`WasmFunctions`, and what only language models and tables in blocks need."""

    def table(self) -> Mapping[str, Callable[..., Tensor]]:
        own = (
            self.embedding,
            self.token_embedding,
            self.rope_append,
            self.cached_attention,
            self.argmax_token,
            self.allowed_token,
        )
        return {**super().table(), **{f.__name__: f for f in own}}

    def embedding(
        self,
        ids: Operand,
        table: Matrix,
        position: Operand | None = None,
        bias: Operand | None = None,
        before: Operand | None = None,
        *,
        first: int = 0,
        whole: int = 0,
    ) -> Tensor:
        """See `ops.embedding`."""
        y = self._taken(table, ids, None, before, ids.shape, first, whole)
        if position is not None:
            y = self.add(y, _rows(position, ids.shape[1]))
        return y if bias is None else self.add(y, bias)

    def token_embedding(
        self,
        table: Matrix,
        tokens: Operand,
        position: Operand,
        before: Operand | None = None,
        *,
        length: int,
        first: int = 0,
        whole: int = 0,
    ) -> Tensor:
        """See `ops.token_embedding`."""
        return self._taken(table, tokens, position, before, (length,), first, whole)

    def _taken(
        self,
        table: Matrix,
        indices: Operand,
        start: Operand | None,
        before: Operand | None,
        shape: tuple[int, ...],
        first: int,
        whole: int,
    ) -> Tensor:
        """Gather rows of a table, by the indices from `start` on (wrapping), as (*shape, K)."""
        blocks = isinstance(table, Blocks | BlockMatrix)
        data, kind = (table.data, table.type) if blocks else (table, BlockType.F32)
        rows, inner = table.shape
        y, scratch = self._kernels.empty((*shape, inner)), self._room(inner)
        sizes = (int(kind), prod(shape), rows, inner, indices.size, first, whole or rows)
        self._kernels.call("take_rows", y, data, indices, start, before, scratch, *sizes)
        return y

    def rope_append(
        self,
        qkv: Operand,
        cache: Operand,
        angles: Operand,
        position: Operand,
        onto: Tensor | None = None,
        *,
        size: int,
        pairs: str,
        **attributes: int,
    ) -> Tensor:
        """See `ops.rope_append`."""
        part = part_from(attributes)
        y = self._kernels.empty((len(qkv), part.heads * size)) if onto is None else onto
        scratch = self._room(self._kernels.call("rope_append_scratch", part.n_kept, size))
        sizes = (_is_f16(cache), len(cache), len(qkv), part.heads, part.kv_heads, size)
        where = (pairs == "adjacent", part.first_kept, part.n_kept)
        operands = (y, qkv, cache, angles, position, scratch)
        self._kernels.call("rope_append", *operands, *sizes, *where)
        return y

    def cached_attention(
        self,
        q: Operand,
        cache: Operand,
        position: Operand,
        onto: Tensor | None = None,
        *,
        size: int,
        window: int,
        scale: float = 0.0,
        softcap: float = 0.0,
        **attributes: int,
    ) -> Tensor:
        """See `ops.cached_attention`."""
        part = part_from(attributes, len(q))
        y = self._kernels.empty(q.shape) if onto is None else onto
        queries = part.queries(len(q))
        needed = ("cached_attention_scratch", len(cache), queries, part.n_heads, size)
        scratch = self._room(self._kernels.call(*needed))
        sizes = (_is_f16(cache), len(cache), len(q), part.heads, part.n_kept, size, window)
        heads = (part.n_heads, part.n_kv_heads, part.first_kv_head - part.first_kept)
        where = (part.first_head, part.first_query, queries)
        scores = (float(scale or size**-0.5), float(softcap))
        operands = (y, q, cache, position, scratch)
        self._kernels.call("cached_attention", *operands, *sizes, *heads, *where, *scores)
        return y

    def argmax_token(self, logits: Operand, tokens: Operand, position: Operand) -> Tensor:
        """See `ops.argmax_token`."""
        y = self._kernels.empty((1,), "u32")
        operands = (y, logits, tokens, position)
        self._kernels.call("argmax_token", *operands, logits.shape[1], len(tokens))
        return y

    def allowed_token(
        self,
        logits: Operand,
        tokens: Operand,
        position: Operand,
        kinds: Operand,
        rules: Operand,
        *,
        times: int,
    ) -> Tensor:
        """See `ops.allowed_token`."""
        y = self._kernels.empty((2,))
        operands = (y, logits, tokens, position, kinds, rules)
        self._kernels.call("allowed_token", *operands, logits.shape[1], len(tokens), times)
        return y


def _is_f16(cache: Operand) -> bool:
    return cache.dtype == ("f16" if isinstance(cache, Tensor) else np.float16)


def _rows(table: Operand, count: int) -> Operand:
    return table.rows(count) if isinstance(table, Tensor) else table[:count]
