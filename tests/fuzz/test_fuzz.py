"""A few cases of each target in each run; `python -m tests.fuzz` has as many as there is time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.json_mutations import mutated, written
from tests.fuzz.targets import TARGETS, use

SEED, N_CASES = 0, 20


@pytest.mark.parametrize("target", TARGETS)
def test_mutated_files_end_in_an_answer_or_an_error_of_ours(target: str, tmp_path: Path) -> None:
    for index in range(N_CASES):
        print(f"--seed {SEED} --first {index} --cases 1 {target}")  # pytest shows the last one
        folder = tmp_path / str(index)
        TARGETS[target](folder, Random(f"{target} {SEED} {index}"))
        asyncio.run(use(target, folder))


def test_a_case_is_the_same_each_time() -> None:
    value = {"a": [1, {"b": "c"}], "d": 2.5}
    cases = [
        [written(mutated(value, rng), rng) for _ in range(50)] for rng in (Random(3), Random(3))
    ]
    assert cases[0] == cases[1]
    assert len(set(cases[0])) > 40
