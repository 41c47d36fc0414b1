"""Render chat templates with Jinja, metered in the parsed template and in its sandbox.

Jinja's sandbox protects Python's internals, not against endless work: so what loops, grows,
compares or is output goes through the meter.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.visitor import NodeTransformer

from bascule.text.template_limits import (
    LIMITS,
    MAX_TEMPLATE_CHARACTERS,
    TemplateFault,
    TemplateRefusal,
)
from bascule.text.template_meter import Meter
from bascule.text.template_sandbox import (
    COMPARING,
    JOINING,
    LOOPING,
    MAKING,
    PUTTING,
    RUNNING,
    MeteredEnvironment,
)


class Renderer:
    """A parsed template. TemplateFault if it is invalid."""

    def __init__(self, source: str) -> None:
        if len(source) > MAX_TEMPLATE_CHARACTERS:
            raise TemplateFault(f"it is longer than {MAX_TEMPLATE_CHARACTERS:,} characters")
        self._environment = MeteredEnvironment()
        self._one_at_a_time = Lock()
        try:
            parsed = _Metered().visit(self._environment.parse(source))
            self._template = self._environment.from_string(parsed)
        except TemplateError as error:
            where = f"line {getattr(error, 'lineno', None) or 1}"
            raise TemplateFault(f"{where}: {error.message}") from None
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise TemplateFault(f"it cannot be compiled ({error})") from None

    def render(self, variables: dict[str, object]) -> str:
        """Return the text. TemplateFault or TemplateRefusal; `variables` are JSON values."""
        with self._one_at_a_time:
            self._environment.meter = Meter(LIMITS)
            try:
                return self._template.render(variables)
            except (TemplateFault, TemplateRefusal):
                raise
            except RecursionError:
                raise TemplateFault("it calls itself without end") from None
            except Exception as error:  # whatever Python says of a nonsensical operation
                raise TemplateFault(str(error)[:200] or type(error).__name__) from None


class _Metered(NodeTransformer):
    """Inserts the meter's filters into a parsed template, and rejects what no chat needs."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Continue, but not into another template."""
        if isinstance(node, (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            raise TemplateFault("it asks for another template")
        if isinstance(node, nodes.Block):
            raise TemplateFault("it has a block, which chat templates do not need")
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Count a loop before it starts, and each run of its body."""
        if node.recursive:
            raise TemplateFault("it has a recursive loop, which chat templates do not need")
        tested = 0 if node.test is None else _size(node.test)
        node = self._counted(node)
        node.iter = _filtered(node.iter, LOOPING, nodes.Const(tested))
        return node

    def _counted(self, node: Any) -> Any:
        """Count the nodes of a body each time it runs."""
        size = sum(map(_size, node.body))
        self.generic_visit(node)
        paying = _filtered(nodes.Const(size, lineno=node.lineno), RUNNING)
        node.body.insert(0, nodes.ExprStmt(paying, lineno=node.lineno))
        return node

    visit_Macro = visit_CallBlock = _counted

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """Count what is output."""
        self.generic_visit(node)
        node.nodes = [_filtered(child, PUTTING) for child in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        """Count a comparison before it is made; a chain is one after the other."""
        self.generic_visit(node)
        left, result = node.expr, list[nodes.Expr]()
        for operand in node.ops:
            result.append(_filtered(left, COMPARING, nodes.Const(operand.op), operand.expr))
            left = operand.expr
        joined = result[0]
        for each in result[1:]:
            joined = nodes.And(joined, each, lineno=node.lineno)
        return joined

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Count the texts before they are joined."""
        self.generic_visit(node)
        return _filtered(nodes.Const(None, lineno=node.lineno), JOINING, *node.nodes)

    def _making(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, MAKING)

    visit_List = visit_Dict = _making

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Count a slice."""
        return self._making(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """Count a tuple, unless it binds names."""
        return self._making(node) if node.ctx == "load" else self.generic_visit(node)


def _size(node: nodes.Node) -> int:
    """Return how many nodes run with one; bodies inside count themselves."""
    own = isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock))
    inner = node.iter_child_nodes(exclude=("body",) if own else None)
    return 1 + sum(map(_size, inner))


def _filtered(node: Any, name: str, *args: nodes.Expr) -> nodes.Filter:
    lineno = getattr(node, "lineno", None) or 1
    for each in args:
        each.lineno = each.lineno or lineno
    return nodes.Filter(node, name, [*args], [], None, None, lineno=lineno)
