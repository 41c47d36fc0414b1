"""Write docs/api.md: every public name of `bascule`, from its signature and docstring.

    .venv/bin/python tools/api_reference.py

tests/test_api_reference.py fails where the file is not what this writes.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import bascule
import bascule.array as xp
from bascule import cache
from bascule.device.operations import Operations
from bascule.errors import BasculeError

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 96
HEAD = """# API reference

Written by tools/api_reference.py from the docstrings: edit those. Errors have a page of their own,
[errors.md](errors.md).
"""

# What functions of the public names return, where it has a class of its own.
RESULTS = (
    "bascule.kernels.elementwise.ElementwiseKernel",
    "bascule.kernels.recording.Recording",
    "bascule.kernels.reduction.ReductionKernel",
    "bascule.pipelines.pipeline.Pipeline",
    "bascule.tasks.classifications.Classification",
    "bascule.tasks.classifications.Ranking",
    "bascule.tasks.embeddings.Embeddings",
    "bascule.tasks.proof.Proof",
    "bascule.tasks.transcription.Transcription",
)


def reference() -> str:
    """The whole page, in Markdown."""
    objects = {name: getattr(bascule, name) for name in sorted(bascule.__all__)}
    names = [name for name in objects if not name.startswith("__")]
    errors = {name for name in names if _is_error(objects[name])}
    shown = [name for name in names if name not in errors or _is_alias(name, objects[name])]
    parts = [HEAD]
    parts += [_section(f"bascule.{name}", objects[name]) for name in shown]
    parts += [_section(name, resolve_name(name)) for name in RESULTS]
    parts.append(_operations())
    parts.append(_arrays())
    functions = [name for name, _ in inspect.getmembers(cache, inspect.iscoroutinefunction)]
    parts += [
        _section(f"bascule.cache.{name}", getattr(cache, name))
        for name in functions
        if not name.startswith("_") and getattr(cache, name).__module__ == cache.__name__
    ]
    return "\n".join(parts)


def _operations() -> str:
    """What a device computes; the names are the same on every tier."""
    lines = [
        "## device.ops\n",
        _text(Operations),
        "| operation | |\n|---|---|",
    ]
    ops = bascule.sync(bascule.open_device("cpu")).ops
    for name in dir(ops):
        result = getattr(ops, name)
        heading = f"await {name}{_signature(result)}".replace("|", "\\|")
        lines.append(f"| `{heading}` | {_summary(result)} |")
    return "\n".join([*lines, ""])


def _arrays() -> str:
    """The functions of bascule.array, and its classes."""
    lines = ["## bascule.array\n", _text(xp), "| function | |", "|---|---|"]
    spaces = {"xp": xp, "xp.fft": xp.fft, "xp.linalg": xp.linalg}
    for space, module in spaces.items():
        names = {*module.__all__, *(xp.FUNCTIONS if module is xp else ())}
        for name in sorted(names):
            result = getattr(module, name)
            if inspect.isfunction(result):
                heading = _heading(f"{space}.{name}", result).replace("|", "\\|")
                lines.append(f"| `{heading}` | {_summary(result)} |")
    classes = {
        "bascule.array.Array": xp.Array,
        "bascule.array.ArrayDevice": xp.ArrayDevice,
        "bascule.array.random.Generator": xp.random.Generator,
    }
    return "\n".join([*lines, "", *(_section(name, each) for name, each in classes.items())])


def _is_error(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, BasculeError)


def _is_alias(name: str, value: object) -> bool:
    return inspect.isclass(value) and value.__name__ != name.rpartition(".")[2]


def _section(name: str, value: Any) -> str:
    if _is_alias(name, value):
        return f"## {name}\n\nAnother name of `bascule.{value.__name__}`.\n"
    if not inspect.isclass(value):
        if callable(value):
            return f"## {name}\n\n{_code(_heading(name, value))}{_text(value)}"
        return f"## {name}\n\n{_type_alias(value)}\n"
    lines = [f"## {name}\n"]
    if issubclass(value, Enum):
        names = ", ".join(f"`{key}`" for key in value.__members__)
        lines.append(f"Members: {names}.\n\n{_text(value)}")
        return "\n".join(lines)
    lines.append(_code(_heading(name, value)) + _text(value))
    members = list(_members(value))
    if members:
        lines.append("| member | |\n|---|---|")
        lines += [f"| `{heading}` | {summary} |" for heading, summary in members]
        lines.append("")
    return "\n".join(lines)


def _type_alias(value: object) -> str:
    return f"One of `{value}`.".replace("typing.", "")


def _heading(name: str, value: Callable[..., object]) -> str:
    waits = "await " if inspect.iscoroutinefunction(value) else ""
    return f"{waits}{name}{_signature(value)}"


def _wrapped(heading: str) -> str:
    """A long signature with a parameter a line."""
    if len(heading) <= WIDTH:
        return heading
    start, rest = heading.split("(", 1)
    inside, end = rest.rsplit(")", 1)
    parameters: list[str] = []
    depth = 0
    for part in inside.split(", "):
        if depth:
            parameters[-1] += f", {part}"
        else:
            parameters.append(part)
        depth += sum(map(part.count, "([{")) - sum(map(part.count, ")]}"))
    return f"{start}(\n" + "".join(f"    {p},\n" for p in parameters) + f"){end}"


def _signature(value: Callable[..., object]) -> str:
    """Parameters with their annotations as they are written; no self."""
    try:
        result = inspect.signature(value)
    except ValueError:
        return "()"
    parameters = [p for p in result.parameters.values() if p.name != "self"]
    plain = [
        p.replace(default=_default(p.default), annotation=_annotation(p.annotation))
        for p in parameters
    ]
    gives = _annotation(result.return_annotation)
    text = str(result.replace(parameters=plain, return_annotation=gives))
    return text.removesuffix(" -> None")


class _Shown:
    """A default as the page shows it: the same in every process."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _default(value: object) -> object:
    if value is inspect.Parameter.empty or isinstance(value, int | float | str | tuple | None):
        return value
    return _Shown("...")


def _annotation(value: object) -> object:
    return _Shown(value) if isinstance(value, str) else value


def _text(value: object) -> str:
    return f"{inspect.getdoc(value) or ''}\n"


def _code(text: str) -> str:
    return f"```python\n{_wrapped(text)}\n```\n\n"


def _members(value: type) -> Iterator[tuple[str, str]]:
    """Public methods and properties with the first paragraph of their docstrings."""
    fields: set[str] = set()
    if dataclasses.is_dataclass(value):
        fields = {field.name for field in dataclasses.fields(value)}
    for name, member in inspect.getmembers(value):
        if name.startswith("_") or name in fields or not _ours(value, name):
            continue
        static = inspect.getattr_static(value, name)
        if isinstance(static, property):
            yield name, _summary(static)
        elif callable(member) and not inspect.isclass(member):
            yield _heading(name, member).replace("|", "\\|"), _summary(member)


def _ours(value: type, name: str) -> bool:
    """Whether a member is defined in this package, and not by a base class of another."""
    owner = next((base for base in value.__mro__ if name in vars(base)), value)
    return owner.__module__.split(".")[0] == "bascule"


def _summary(member: object) -> str:
    paragraph = (inspect.getdoc(member) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("|", "\\|")


if __name__ == "__main__":
    (DOCS / "api.md").write_text(reference(), encoding="utf-8")
    print(f"wrote {DOCS / 'api.md'}")
