"""The memory plan: no two values that live together share a buffer, and reuse pays."""

from __future__ import annotations

import random

import pytest

from bascule.models.bert import BERT
from bascule.models.encoder.config import EncoderConfig
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.memory import plan
from bascule.program.program import Call, Dim, Value
from bascule.tasks.sentence_graph import Encoder, sentence_encoder

MINILM = EncoderConfig(30522, 384, 6, 12, 1536, 512, "gelu", 1e-12)


def _assert_no_clash(calls: list[Call], outputs: list[Value]) -> None:
    memory = plan(calls, outputs)
    last = {o.name: i for i, c in enumerate(calls) for o in c.operands if o is not None}
    last |= {v.name: len(calls) for v in outputs}
    for i, call in enumerate(calls):
        assert memory.slot_nbytes[memory.slots[call.result.name]] >= call.result.nbytes
        for later in range(i + 1, len(calls)):
            if memory.slots[calls[later].result.name] == memory.slots[call.result.name]:
                # The earlier value must be dead before the later one is written.
                assert last.get(call.result.name, i) < later


@pytest.mark.parametrize("seed", range(20))
def test_random_graphs_never_share_a_live_buffer(seed: int) -> None:
    rng = random.Random(seed)
    graph = Graph("random")
    values = [graph.input("x", (rng.randint(1, 9), 4))]
    for _ in range(rng.randint(1, 30)):
        x = rng.choice(values)
        if rng.random() < 0.5:
            values.append(graph.call("activate", x, kind="relu"))
        else:
            values.append(
                graph.call("add", x, rng.choice([v for v in values if v.shape == x.shape]))
            )
    outputs = rng.sample(values[1:], k=rng.randint(1, len(values) - 1))
    _assert_no_clash(graph.calls, outputs)


def test_minilm_needs_a_fraction_of_the_naive_bytes() -> None:
    graph = sentence_encoder(Encoder(BERT, MINILM), Dim("B", 32), Dim("T", 128))
    program = freeze(graph)
    _assert_no_clash(list(program.calls), list(program.outputs))
    # Alive at once at the widest place: x, the residual stream and the inner layer.
    assert program.planned_nbytes < program.naive_nbytes / 7
    assert len(program.slot_nbytes) <= 4
