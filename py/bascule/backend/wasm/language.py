"""The ops of language models that kernels compute: weights in blocks, a KV cache, tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

import numpy as np

from bascule.backend.quant import BlockMatrix
from bascule.backend.wasm.functions import WasmFunctions
from bascule.backend.wasm.kernels import Array
from bascule.dtypes import BlockType


class LanguageFunctions(WasmFunctions):
    """`WasmFunctions`, and what only language models and tables in blocks need."""

    def table(self) -> Mapping[str, Callable[..., Array]]:
        """See `WasmFunctions.table`."""
        own = (
            self.embedding,
            self.token_embedding,
            self.rope_append,
            self.cached_attention,
            self.argmax_token,
        )
        return {**super().table(), **{f.__name__: f for f in own}}

    def embedding(
        self,
        ids: Array,
        table: Array | BlockMatrix,
        position: Array | None = None,
        bias: Array | None = None,
        before: Array | None = None,
        *,
        first: int = 0,
        whole: int = 0,
    ) -> Array:
        """See `reference.embedding`."""
        y = self._taken(table, ids, None, before, ids.shape, first, whole)
        if position is not None:
            y = self.add(y, position[: ids.shape[1]])
        return y if bias is None else self.add(y, bias)

    def token_embedding(
        self,
        table: Array | BlockMatrix,
        tokens: Array,
        position: Array,
        before: Array | None = None,
        *,
        length: int,
        first: int = 0,
        whole: int = 0,
    ) -> Array:
        """See `reference.token_embedding`."""
        return self._taken(table, tokens, position, before, (length,), first, whole)

    def _taken(
        self,
        table: Array | BlockMatrix,
        indices: Array,
        start: Array | None,
        before: Array | None,
        shape: tuple[int, ...],
        first: int,
        whole: int,
    ) -> Array:
        """Rows of a table, by the indices from `start` on around their end, as (*shape, K)."""
        blocks = isinstance(table, BlockMatrix)
        data, kind = (table.data, table.type) if blocks else (table, BlockType.F32)
        rows, inner = table.shape
        y, scratch = self._kernels.empty((*shape, inner)), self._room(inner)
        sizes = (int(kind), prod(shape), rows, inner, indices.size, first, whole or rows)
        self._kernels.call("take_rows", y, data, indices, start, before, scratch, *sizes)
        return y

    def rope_append(
        self,
        qkv: Array,
        cache: Array,
        angles: Array,
        position: Array,
        *,
        heads: int,
        kv_heads: int,
        size: int,
        pairs: str,
    ) -> Array:
        """See `reference.rope_append`."""
        y = self._kernels.empty((len(qkv), heads * size))
        scratch = self._room(self._kernels.call("rope_append_scratch", kv_heads, size))
        sizes = (_is_f16(cache), len(cache), len(qkv), heads, kv_heads, size, pairs == "adjacent")
        self._kernels.call("rope_append", y, qkv, cache, angles, position, scratch, *sizes)
        return y

    def cached_attention(
        self,
        q: Array,
        cache: Array,
        position: Array,
        *,
        heads: int,
        kv_heads: int,
        size: int,
        window: int,
    ) -> Array:
        """See `reference.cached_attention`."""
        y = self._kernels.empty(q.shape)
        needed = ("cached_attention_scratch", len(cache), len(q), heads, size)
        scratch = self._room(self._kernels.call(*needed))
        sizes = (_is_f16(cache), len(cache), len(q), heads, kv_heads, size, window)
        self._kernels.call("cached_attention", y, q, cache, position, scratch, *sizes)
        return y

    def argmax_token(self, logits: Array, tokens: Array, position: Array) -> Array:
        """See `reference.argmax_token`."""
        y = self._kernels.empty((1,), np.uint32)
        operands = (y, logits, tokens, position)
        self._kernels.call("argmax_token", *operands, logits.shape[1], len(tokens))
        return y


def _is_f16(cache: Array) -> bool:
    return cache.dtype == np.float16
