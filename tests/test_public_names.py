"""The names at top level: few, in two sections, and the same for Python and for type checkers."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import bascule
from bascule import _HOMES, _PUBLIC, _SEEDS  # pyright: ignore[reportPrivateUsage]

MAX_PUBLIC = 26


def names(table: dict[str, str]) -> list[str]:
    return [name for each in table.values() for name in each.split()]


def test_a_newcomer_meets_few_names() -> None:
    assert len(names(_PUBLIC)) <= MAX_PUBLIC
    assert sorted([*names(_PUBLIC), *names(_SEEDS)]) == bascule.__all__ == sorted(_HOMES)


def test_each_name_is_where_the_table_says() -> None:
    for name, home in _HOMES.items():
        assert getattr(bascule, name) is getattr(import_module(home), name)


def test_type_checkers_see_the_same_names() -> None:
    stub = ast.parse((Path(bascule.__file__).parent / "__init__.pyi").read_text("utf-8"))
    results = {
        alias.asname: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert results == _HOMES


def test_modules_that_users_need_are_attributes() -> None:
    code = "import bascule; print(bascule.errors.DeviceLostError, bascule.array, bascule.cache.ls)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {"array", "cache", "errors"} <= set(dir(bascule))


def test_a_name_that_is_none_is_no_attribute() -> None:
    assert not hasattr(bascule, "ContextLengthError")  # bascule.errors has it
    assert not hasattr(bascule, "Nothing")
