"""The parameters of a model are those of all its programs together."""

from __future__ import annotations

import pytest

from bascule.errors import InputError
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.parameters import all_parameters
from bascule.program.program import Program


def made_of(**rows: int) -> Program:
    graph = Graph("made of " + ", ".join(rows))
    x = graph.input("x", (1, 4))
    for name, n in rows.items():
        graph.output(graph.call("linear", x, graph.parameter(name, (n, 4)), activation="none"))
    return freeze(graph)


def test_no_program_has_to_have_all() -> None:
    encode, decode = made_of(table=5, encoder=3), made_of(table=5, decoder=2)
    results = [parameter.name for parameter in all_parameters([encode, decode])]
    assert results == ["table", "encoder", "decoder"]


def test_a_name_means_one_parameter() -> None:
    with pytest.raises(InputError, match="one shape and type of table in all programs"):
        all_parameters([made_of(table=5), made_of(table=6)])
