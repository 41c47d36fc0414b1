"""Every public method says what it does, itself or by the method that it stands for.

ruff holds modules, classes and functions to having a docstring. A method may leave its own out
where a base class, or a protocol that its class's docstring names in backticks, documents it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "py" / "bascule"
NAMED = re.compile(r"`(?:\w+\.)*(\w+)`")
Function = ast.FunctionDef | ast.AsyncFunctionDef


def classes() -> dict[str, list[tuple[Path, ast.ClassDef]]]:
    result: dict[str, list[tuple[Path, ast.ClassDef]]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef):
                result.setdefault(node.name, []).append((path, node))
    return result


CLASSES = classes()


def methods(node: ast.ClassDef) -> Iterator[Function]:
    for each in node.body:
        if isinstance(each, Function) and not each.name.startswith("_"):
            decorators = {ast.unparse(decorator) for decorator in each.decorator_list}
            if not decorators & {"overload", f"{each.name}.setter"}:
                yield each


def referred(node: ast.ClassDef) -> set[str]:
    """The names of its bases, and of what its docstring names."""
    bases = {ast.unparse(base).split("[")[0].rpartition(".")[2] for base in node.bases}
    return bases | set(NAMED.findall(ast.get_docstring(node) or ""))


def documents(names: set[str], method: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether one of these classes, or what they refer to, has a docstring for the method."""
    for name in names - seen:
        for _, node in CLASSES.get(name, ()):
            if any(m.name == method and ast.get_docstring(m) for m in methods(node)):
                return True
            if documents(referred(node), method, seen | names):
                return True
    return False


def undocumented(node: ast.ClassDef) -> list[str]:
    bare = [m.name for m in methods(node) if ast.get_docstring(m) is None]
    return [name for name in bare if not documents(referred(node), name)]


def test_every_public_method_has_a_docstring_or_stands_for_one_that_has() -> None:
    missing = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {name}.{method}"
        for name, nodes in CLASSES.items()
        if not name.startswith("_")
        for path, node in nodes
        for method in undocumented(node)
    ]
    assert not missing


def test_a_class_that_names_no_protocol_has_to_document_its_methods() -> None:
    text = 'class Own:\n    """{}"""\n\n    def release(self) -> None:\n        self.x = 1\n'
    alone, named = (ast.parse(text.format(d)).body[0] for d in ("Files.", "A `Source` of files."))
    assert isinstance(alone, ast.ClassDef)
    assert isinstance(named, ast.ClassDef)
    assert undocumented(alone) == ["release"]
    assert undocumented(named) == []
