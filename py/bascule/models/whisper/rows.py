"""Whisper's decoder over several tokens at once, each of which sees what a bias allows.

R rows, one token each; S slots of keys and values that rows leave behind. A bias says which of them
precede a row: one text's tokens, or several texts with common prefixes (beams). All rows attend to
all of the sound.
"""

from __future__ import annotations

from bascule.models.speech.config import Rows
from bascule.models.whisper.graph import CROSS_LAST, WhisperGraph
from bascule.program.program import Value

# State (1) u32: the slot of the first row.
ROW_SLOT = "row_slot"


def decode_rows(to: WhisperGraph, rows: Rows) -> list[Value]:
    """Record the pass -> logits (R, V), then the queries (R, C) of the layers `rows.queries`.

    Inputs: `ids` and `positions` (1, R) u32; `q_at`, `k_at` and `v_at` (1, R) u32, the index of
    each among 3R vectors; `bias` (H, R, S), 0 if a row sees a slot and very negative otherwise.
    """
    graph, config, r = to.graph, to.config, rows.count
    c = config.hidden
    ids, positions = (graph.input(name, (1, r), "u32") for name in ("ids", "positions"))
    bias = graph.input("bias", (config.decoder.heads, r, rows.slots))
    parts = [graph.input(f"{part}_at", (1, r), "u32") for part in "qkv"]
    name = "model.decoder"
    table = graph.parameter(f"{name}.embed_tokens.weight", (config.vocabulary, c))
    learned = graph.parameter(f"{name}.embed_positions.weight", (config.decoder.places, c))
    slot, last = (graph.state(state, (1,), "u32") for state in (ROW_SLOT, CROSS_LAST))
    x = graph.call("embedding", ids, table)
    x = graph.call("add", x, graph.call("embedding", positions, learned))
    x = graph.reshape(x, (r, c))
    results: list[Value] = []
    for layer in range(config.decoder.layers):
        at = f"{name}.layers.{layer}"
        keys, values = (
            graph.state(f"row_{part}.{layer}", (rows.slots, c)) for part in ("keys", "values")
        )
        x = _among_rows(to, x, (keys, values, slot), (parts, bias), at)
        y = to.norm(x, f"{at}.encoder_attn_layer_norm")
        q = to.linear(y, c, f"{at}.encoder_attn.q_proj")
        if layer in rows.queries:
            results.append(q)
        x = to.linear(_heard(to, q, layer, last), c, f"{at}.encoder_attn.out_proj", x)
        x = to.fed_forward(x, config.decoder.inner, at)
    x = to.norm(x, f"{name}.layer_norm")
    return [graph.call("linear", x, table, activation="none"), *results]


def _among_rows(
    to: WhisperGraph,
    x: Value,
    states: tuple[Value, Value, Value],
    seen: tuple[list[Value], Value],
    name: str,
) -> Value:
    """Record the self-attention of x (R, C); its keys and values go into the slots."""
    graph, c = to.graph, to.config.hidden
    (keys, values, slot), (parts, bias) = states, seen
    count, slots = x.shape[0], keys.shape[0]
    assert isinstance(count, int)
    qkv = to.stacked(to.norm(x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn", "qkv")
    vectors = graph.reshape(qkv, (3 * count, c))
    q, k, v = (graph.call("embedding", at, vectors) for at in parts)  # (1, R, C)
    for x_of, state in ((k, keys), (v, values)):
        graph.call("kv_append", graph.reshape(x_of, (count, c)), state, slot)
    views = [graph.reshape(state, (1, slots, c)) for state in (keys, values)]
    heads = {"heads": to.config.decoder.heads, "kv_heads": to.config.decoder.heads}
    mixed = graph.call("dot_product_attention", q, *views, None, bias, **heads)
    return to.linear(graph.reshape(mixed, (count, c)), c, f"{name}.self_attn.out_proj", x)


def _heard(to: WhisperGraph, q: Value, layer: int, last: Value) -> Value:
    """Record the cross-attention of q (R, C): all rows of a head share its keys and values."""
    graph, heads, c = to.graph, to.config.decoder.heads, to.config.hidden
    count, size = q.shape[0], c // heads
    assert isinstance(count, int)
    by_head = graph.call("transpose", graph.reshape(q, (count, heads, size)), axes="102")
    q = graph.reshape(by_head, (1, count * c))  # one query with R heads over each head of the cache
    shared = {"heads": heads * count, "kv_heads": heads, "size": size}
    mixed = graph.call("cached_attention", q, to.cross_cache(layer), last, **shared, window=0)
    mixed = graph.reshape(mixed, (heads, count, size))
    return graph.reshape(graph.call("transpose", mixed, axes="102"), (count, c))
