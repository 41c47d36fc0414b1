"""The parameters of a model with several programs."""

from __future__ import annotations

from collections.abc import Iterable

from bascule.errors import InputError
from bascule.program.program import Parameter, Program


def all_parameters(programs: Iterable[Program]) -> tuple[Parameter, ...]:
    """Return the union of the programs' parameters, in the order in which passes need them.

    InputError if two programs have different parameters of one name.
    """
    results: dict[str, Parameter] = {}
    for program in programs:
        for parameter in program.parameters:
            if results.setdefault(parameter.name, parameter) != parameter:
                expected = f"one shape and type of {parameter.name} in all programs"
                raise InputError(f"program {program.name}", expected, "another")
    return tuple(results.values())
