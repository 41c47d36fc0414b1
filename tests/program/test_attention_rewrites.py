"""Rewrites of attention as programs: what is split into what, and what each part has to do."""

from __future__ import annotations

from math import inf, nan

import pytest

from bascule.errors import InputError, LimitError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.ops.parts import attention_work, part_of
from bascule.program.program import Call, Dim, Program
from bascule.program.rewrites.attention import does_attention
from bascule.program.rewrites.heads import head_partitioning
from bascule.program.rewrites.kv_partitions import partitioned_kv_cache
from bascule.program.rewrites.queries import chunked_attention
from bascule.program.rewrites.rewrite import Limits, fit

ALL = (partitioned_kv_cache, head_partitioning, chunked_attention)


def encoder(heads: int = 6, batch: int = 2, tokens: int = 11, size: int = 4) -> Program:
    graph = Graph("encoder")
    b, t = Dim("B", batch), Dim("T", tokens)
    qkv = graph.input("qkv", (b, t, 3 * heads * size))
    y = graph.call("attention", qkv, graph.input("lengths", (b,), "u32"), heads=heads)
    graph.output(graph.call("activate", y, kind="relu"))
    return freeze(graph)


def decoder(
    heads: int = 6, kv_heads: int = 3, size: int = 4, tokens: int = 7, window: int = 0
) -> Program:
    """Two layers over caches of 20 slots; the second one only appends, as a prefill's last does."""
    graph = Graph("decoder")
    t, s = Dim("T", tokens), Dim("S", 20)
    position = graph.state("position", (1,), "u32")
    angles = graph.state("angles", (Dim("A", 300), size))
    shape = {"heads": heads, "kv_heads": kv_heads, "size": size}
    qkv = graph.input("qkv", (t, (heads + 2 * kv_heads) * size))
    for layer in range(2):
        cache = graph.state(f"cache.{layer}", (s, 2 * kv_heads * size), "f16")
        q = graph.call("rope_append", qkv, cache, angles, position, pairs="halves", **shape)
        if not layer:
            y = graph.call("cached_attention", q, cache, position, window=window, **shape)
            graph.output(y)
    graph.output(q)
    return freeze(graph)


def attentions(program: Program) -> list[Call]:
    return [call for call in program.calls if does_attention(call)]


@pytest.mark.parametrize("program", [encoder(), decoder()], ids=["encoder", "decoder"])
def test_what_is_within_the_limits_is_left_alone(program: Program) -> None:
    work = max(map(attention_work, attentions(program)))
    binding = max(value.nbytes for value in (*program.states, *program.inputs))
    for limits in (Limits(), Limits(dispatch_work=work, binding_nbytes=binding)):
        result, applied = fit(program, limits, ALL)
        assert result is program
        assert applied == ()


def test_work_is_that_of_scores_and_sums() -> None:
    assert attention_work(attentions(encoder())[0]) == 2 * 2 * 6 * 11 * 11 * 4
    assert attention_work(attentions(decoder())[0]) == 2 * 6 * 7 * 20 * 4
    assert attention_work(attentions(decoder(window=5))[0]) == 2 * 6 * 7 * 5 * 4


@pytest.mark.parametrize(
    ("program", "maximum", "expected"),
    [
        (encoder(), 3, [3, 3]),
        (encoder(), 5, [3, 3]),
        (encoder(), 2, [2, 2, 2]),
        (encoder(heads=7), 3, [2, 2, 3]),
        (encoder(), 0.5, [1] * 6),
        (decoder(), 5, [2, 4]),
        (decoder(), 3, [2, 2, 2]),
        (decoder(), 1, [1] * 6),
        (decoder(heads=10, kv_heads=2), 3, [2, 3, 2, 3]),
        (decoder(heads=5, kv_heads=1), 4, [2, 3]),
    ],
)
def test_heads_are_as_few_near_equal_groups_as_fit(
    program: Program, maximum: float, expected: list[int]
) -> None:
    """Of whole KV heads, or within one."""
    whole = attentions(program)[0]
    each = attention_work(whole) // part_of(whole).n_heads
    limits = Limits(dispatch_work=maximum * each)
    result, applied = head_partitioning(program, limits)
    parts = [part_of(call) for call in attentions(result)]
    assert [part.n_heads for part in parts] == expected
    assert [p.first_head for p in parts] == [sum(expected[:i]) for i in range(len(expected))]
    for part in parts:
        part.check("attention")
    assert [(t.strategy, t.parts) for t in applied] == [("head_partitioning", len(expected))]
    assert f"{attention_work(whole):,}" in applied[0].reason
    assert sum(map(attention_work, attentions(result))) == attention_work(whole)
    assert max(map(attention_work, attentions(result))) <= max(limits.dispatch_work, each)


@pytest.mark.parametrize(
    ("maximum", "expected"), [(10, [5, 6]), (6, [5, 6]), (5, [3, 4, 4]), (1, [1] * 11)]
)
def test_queries_are_as_few_near_equal_chunks_as_fit(maximum: int, expected: list[int]) -> None:
    program = encoder()
    each = attention_work(attentions(program)[0]) // 11
    result, applied = chunked_attention(program, Limits(dispatch_work=maximum * each))
    parts = [part_of(call) for call in attentions(result)]
    assert [part.n_queries for part in parts] == expected
    assert [part.first_query for part in parts] == [
        sum(expected[: len(parts[:i])]) for i in range(len(parts))
    ]
    assert [(t.strategy, t.parts) for t in applied] == [("chunked_attention", len(expected))]
    assert max(map(attention_work, attentions(result))) <= maximum * each


def test_strategies_compose_and_each_is_told() -> None:
    program = decoder()
    state = program.states[2]
    limits = Limits(dispatch_work=2 * 20 * 4 * 2, binding_nbytes=state.nbytes * 2 // 3)
    for order in (ALL, ALL[::-1][1:] + ALL[::-1][:1]):
        result, applied = fit(program, limits, order)
        output = list(dict.fromkeys(t.strategy for t in applied))
        assert output == [rewrite.__name__ for rewrite in order]
        assert max(map(attention_work, attentions(result))) <= limits.dispatch_work
        assert (
            max(s.nbytes for s in result.states if s.name.startswith("cache."))
            <= limits.binding_nbytes
        )
        done = [
            (query, head)
            for part in map(part_of, attentions(result))
            for query in range(part.first_query, part.first_query + part.queries(7))
            for head in range(part.first_head, part.first_head + part.n_heads)
        ]
        assert sorted(done) == [(query, head) for query in range(7) for head in range(6)]
        names = [call.result.name for call in result.calls]
        assert len(set(names)) == len(names)
        assert {v.name for v in result.outputs} <= set(names)


def test_parts_need_no_more_memory_than_the_whole() -> None:
    for program in (encoder(), decoder()):
        work = attention_work(attentions(program)[0])
        caches = [state.nbytes for state in program.states if state.name.startswith("cache.")]
        limits = Limits(max(caches, default=inf) * 2 / 3, dispatch_work=work / 9)
        result, applied = fit(program, limits, ALL)
        assert len({t.strategy for t in applied}) == (3 if caches else 2)
        assert result.planned_nbytes == program.planned_nbytes


@pytest.mark.parametrize(
    ("kv_heads", "share", "expected"),
    [(3, 2, [1, 2]), (3, 1, [1, 1, 1]), (3, 2.9, [1, 2]), (8, 3, [2, 3, 3]), (5, 4, [2, 3])],
)
def test_a_cache_becomes_as_few_near_equal_ones_as_fit(
    kv_heads: int, share: float, expected: list[int]
) -> None:
    program = decoder(heads=2 * kv_heads, kv_heads=kv_heads)
    each = 20 * 2 * 4 * 2  # bytes of one KV head
    limits = Limits(binding_nbytes=share * each)
    result, applied = partitioned_kv_cache(program, limits)
    assert [(t.strategy, t.parts) for t in applied] == [("partitioned_kv_cache", len(expected))]
    assert f"{kv_heads * each:,}" in applied[0].reason
    messages = [(s.name, s.shape, s.dtype) for s in result.states if s.name.startswith("cache.1")]
    s = Dim("S", 20)
    assert messages == [(f"cache.1.{i}", (s, 8 * n), "f16") for i, n in enumerate(expected)]
    used = {o for call in result.calls for o in call.operands if o and o.name.startswith("cache.")}
    assert used == {state for state in result.states if state.name.startswith("cache.")}
    assert max(state.nbytes for state in used) <= limits.binding_nbytes


def test_programs_that_share_a_cache_divide_it_alike() -> None:
    limits = Limits(binding_nbytes=2 * 20 * 2 * 4 * 2)
    results = [partitioned_kv_cache(decoder(tokens=n, window=n - 1), limits)[0] for n in (1, 7)]
    assert results[0].states == results[1].states


def test_a_kv_head_that_is_too_large_is_refused() -> None:
    expected = r"one KV head of cache\.0 over 20 positions in f16 needs 320 bytes.*most 319"
    with pytest.raises(LimitError, match=expected) as result:
        partitioned_kv_cache(decoder(), Limits(binding_nbytes=319))
    assert "max_length" in result.value.hint


def test_what_parts_share_is_refused_where_it_is_too_large() -> None:
    program = encoder()
    nbytes = program.inputs[0].nbytes
    assert head_partitioning(program, Limits(binding_nbytes=nbytes)) == (program, ())
    with pytest.raises(LimitError, match=f"qkv needs {nbytes:,} bytes.*at most {nbytes - 1:,}"):
        head_partitioning(program, Limits(binding_nbytes=nbytes - 1))


def test_a_query_that_is_too_much_is_refused() -> None:
    program = head_partitioning(decoder(), Limits(dispatch_work=160))[0]
    assert chunked_attention(program, Limits(dispatch_work=160))[1][0].parts == 7
    with pytest.raises(LimitError, match=r"one query of 1 heads.*160 multiply-adds.*may have 159"):
        chunked_attention(program, Limits(dispatch_work=159))


@pytest.mark.parametrize("bound", [0, -1, nan, -inf, True])
@pytest.mark.parametrize("name", ["binding_nbytes", "memory_nbytes", "dispatch_work"])
def test_limits_that_are_none_are_refused(name: str, bound: float) -> None:
    with pytest.raises(InputError, match=f"limit {name}"):
        Limits(**{name: bound})


PART = {"first_head": 0, "n_heads": 4, "first_query": 0, "n_queries": 3}
KEPT = {"first_kept": 0, "n_kept": 2}


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_heads": -1},
        {"n_heads": 5},
        {"first_head": -2},
        {"first_head": 1},  # some heads of one KV head, some of another
        {"n_queries": -1},
        {"first_query": -1},
        {"first_kept": 1},
        {"n_kept": -1},
        {"first_kept": 3, "n_kept": 1},
        {"heads": 7},
        {"size": 6},
    ],
    ids=str,
)
def test_parts_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    graph = Graph("wrong")
    given = {"heads": 8, "kv_heads": 4, "size": 4, "window": 0, **PART, **KEPT, **wrong}
    q = graph.input("q", (5, given["heads"] * given["size"]))
    cache = graph.state("cache", (9, 2 * given["n_kept"] * given["size"]))
    with pytest.raises(InputError, match="op cached_attention"):
        graph.call("cached_attention", q, cache, graph.state("p", (1,), "u32"), **given)


def test_a_part_goes_on_with_a_result_of_its_shape_only() -> None:
    graph = Graph("onto")
    qkv, lengths = graph.input("qkv", (2, 5, 48)), graph.input("lengths", (2,), "u32")
    part = {"heads": 4, **PART, "n_heads": 2, **KEPT, "n_kept": 4}
    y = graph.call("attention", qkv, lengths, **part)
    assert y.shape == (2, 5, 16)
    graph.call("attention", qkv, lengths, y, **part)
    for wrong in (qkv, graph.input("like", (2, 5, 16)), graph.call("activate", qkv, kind="relu")):
        with pytest.raises(InputError, match="to go on with"):
            graph.call("attention", qkv, lengths, wrong, **part)
