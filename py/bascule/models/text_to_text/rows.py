"""T5's two passes over several texts at once: R rows, each a text of its own.

Letters as in `graph`. Sources are padded to T tokens and masked by their lengths. All targets are
at the same position: their keys and values are side by side in a slot, as R times as many heads, so
one attention serves all rows. The passes share the states `row_cross_<k or v>.<layer>` (R * T, HD)
and `row_lengths` (R) by name.
"""

from __future__ import annotations

from dataclasses import dataclass

from bascule.models.text_to_text.graph import Transforming
from bascule.program.graph import Graph
from bascule.program.program import Dim, Value

# States: tokens of each source (R) u32; the slot of the targets (1) u32, and one that stays 0; the
# head of the bias of each of the R * H heads (1, RH) u32.
ROW_LENGTHS, ROW_SLOT, ROW_FIRST, ROW_HEADS = "row_lengths", "row_slot", "row_first", "row_heads"


@dataclass(frozen=True, slots=True)
class TextRows:
    """The number of texts of a pass, the tokens of the longest source, and the targets' slots."""

    count: int
    tokens: int
    slots: Dim

    def cross(self, to: Transforming, layer: int) -> list[Value]:
        """Declare a decoder layer's keys and values of the sources."""
        shape = (self.count * self.tokens, to.config.width)
        return [to.graph.state(f"row_cross_{part}.{layer}", shape) for part in "kv"]

    def lengths(self, graph: Graph) -> Value:
        """Declare the state of the sources' lengths."""
        return graph.state(ROW_LENGTHS, (self.count,), "u32")


def encode_rows(to: Transforming, rows: TextRows) -> Value:
    """Record the inputs `ids` (R, T), `k_at` and `v_at` (1, R * T) u32 -> encoder states (R, T, C).

    `k_at` and `v_at` are the positions of keys and values among those of all tokens, which
    alternate. Fills the states of the cross-attention.
    """
    graph, config = to.graph, to.config
    count = rows.count * rows.tokens
    ids = graph.input("ids", (rows.count, rows.tokens), "u32")
    places = [graph.input(f"{part}_at", (1, count), "u32") for part in "kv"]
    x = to.encoded(ids, rows.lengths(graph), to.bias("encoder", rows.tokens))
    first = graph.state(ROW_FIRST, (1,), "u32")
    for layer in range(config.decoder_layers):
        kv = graph.reshape(to.cross_kv(x, layer), (2 * count, config.width))
        for at, state in zip(places, rows.cross(to, layer), strict=True):
            part = graph.reshape(graph.call("embedding", at, kv), (count, config.width))
            graph.call("kv_append", part, state, first)
    return x


def decode_rows(to: Transforming, rows: TextRows) -> Value:
    """Record the input `ids` (1, R) u32, a token of each target -> logits (R, V)."""
    graph, config, call = to.graph, to.config, to.graph.call
    r, width = rows.count, config.width
    ids = graph.input("ids", (1, r), "u32")
    slot, lengths = graph.state(ROW_SLOT, (1,), "u32"), rows.lengths(graph)
    heads = graph.state(ROW_HEADS, (1, r * config.heads), "u32")
    table = to.table()
    x = graph.reshape(call("embedding", ids, table), (r, config.hidden))
    bias: Value | None = None
    for layer in range(config.decoder_layers):
        name = f"decoder.block.{layer}.layer"
        y = to.norm(x, f"{name}.0.layer_norm")
        q, k, v = (to.linear(y, width, f"{name}.0.SelfAttention.{p}") for p in "qkv")
        keys, values = (graph.state(f"row_{p}.{layer}", (rows.slots, r * width)) for p in "kv")
        call("kv_append", graph.reshape(v, (1, r * width)), values, slot)
        end = call("kv_append", graph.reshape(k, (1, r * width)), keys, slot)
        bias = bias or _bias(to, rows.slots, end, heads)
        views = [graph.reshape(state, (1, rows.slots, r * width)) for state in (keys, values)]
        q, n = graph.reshape(q, (1, 1, r * width)), r * config.heads
        counts = {"heads": n, "kv_heads": n, "scale": 1.0}
        mixed = call("dot_product_attention", q, *views, end, bias, **counts)
        mixed = graph.reshape(mixed, (r, width))
        x = to.linear(mixed, config.hidden, f"{name}.0.SelfAttention.o", x)

        y = to.norm(x, f"{name}.1.layer_norm")
        q = to.linear(y, width, f"{name}.1.EncDecAttention.q")
        views = [graph.reshape(s, (r, rows.tokens, width)) for s in rows.cross(to, layer)]
        q = graph.reshape(q, (r, 1, width))
        counts = {"heads": config.heads, "kv_heads": config.heads, "scale": 1.0}
        mixed = call("dot_product_attention", q, *views, lengths, None, **counts)
        mixed = graph.reshape(mixed, (r, width))
        x = to.linear(mixed, config.hidden, f"{name}.1.EncDecAttention.o", x)
        x = to.fed_forward(x, f"{name}.2")
    return to.logits(x, table)


def _bias(to: Transforming, slots: Dim, end: Value, heads: Value) -> Value:
    """Record the bias of the last token, for the heads of all rows (RH, 1, S)."""
    graph = to.graph
    bias = graph.reshape(to.bias("decoder", slots, end), (to.config.heads, slots))
    (_, n) = heads.shape
    return graph.reshape(graph.call("embedding", heads, bias), (n, 1, slots))
