"""Chat templates in CPython, by Jinja's sandbox with a meter in it.

Jinja's sandbox keeps a template from Python's inside, not from endless work: so what loops, grows
or is put out passes the meter, by filters set into the parsed template and by the sandbox's hooks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from threading import Lock
from typing import Any

from jinja2 import TemplateError, nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from bascule.text.template_limits import (
    DAYS,
    FILTERS,
    LIMITS,
    METHODS,
    MONTHS,
    MOST_TEMPLATE_CHARACTERS,
    MOST_WIDTH,
    TESTS,
    TemplateFault,
    TemplateRefusal,
)
from bascule.text.template_meter import Meter

_LOOPING, _MAKING, _PUTTING = "bascule_looping", "bascule_making", "bascule_putting"
_LOOP_PARTS = frozenset(
    ["first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"]
)
_THROUGH = frozenset(("list", "map", "rejectattr", "selectattr", "sort", "unique"))


class NativeRenderer:
    """See `Renderer`."""

    def __init__(self, source: str) -> None:
        if len(source) > MOST_TEMPLATE_CHARACTERS:
            raise TemplateFault(f"it is longer than {MOST_TEMPLATE_CHARACTERS:,} characters")
        self._environment = _Environment()
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
        """See `Renderer.render`."""
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


class _Space(Namespace):
    """A namespace that is written as its name: what is in it may be endless."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Generation(Extension):
    """`{% generation %}` marks what a model said, for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012  (the base class has it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Its statements alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Metered(NodeTransformer):
    """Sets the meter's filters into a parsed template, and refuses what no chat needs."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Go on, but not into another template."""
        if isinstance(node, (nodes.Extends, nodes.Include, nodes.Import, nodes.FromImport)):
            raise TemplateFault("it asks for another template")
        if isinstance(node, nodes.Block):
            raise TemplateFault("it has a block, which chat templates do not need")
        return super().generic_visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Pay for a loop before it starts."""
        if node.recursive:
            raise TemplateFault("it has a recursive loop, which chat templates do not need")
        self.generic_visit(node)
        node.iter = _filtered(node.iter, _LOOPING)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """Pay for what is put out."""
        self.generic_visit(node)
        node.nodes = [_filtered(child, _PUTTING) for child in node.nodes]
        return node

    def _making(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(node, _MAKING)

    visit_Concat = visit_List = visit_Dict = _making

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        """Pay for what a filter makes, and before it for what it goes through."""
        if node.name in _THROUGH and node.node is not None:
            node.node = _filtered(node.node, _LOOPING)
        return self._making(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Pay for a slice."""
        return self._making(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """Pay for a tuple, unless names are bound by it."""
        return self._making(node) if node.ctx == "load" else self.generic_visit(node)


def _filtered(node: Any, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox of one template; `meter` is set for each rendering."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # it would reckon 'a' * 10**9 while it compiles
            extensions=[_Generation, loopcontrols],
        )
        self.meter = Meter(LIMITS)
        self.tests = {name: self.tests[name] for name in TESTS}
        self.filters = {name: self.filters[name] for name in FILTERS}
        self.filters |= {
            "indent": self._indent,
            "join": self._join,
            "replace": self._replace,
            "safe": _same,
            "tojson": _tojson,
            _LOOPING: self._metering(lambda value: self.meter.looping(value)),
            _MAKING: self._metering(lambda value: self.meter.making(value)),
            _PUTTING: self._metering(lambda value: self.meter.putting(value)),
        }
        self.globals = {
            "namespace": _Space,
            "raise_exception": _refuse,
            "range": lambda *bounds: self.meter.range(*bounds),
            "strftime_now": _strftime_now,
        }

    def _metering(self, meter: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        # What takes the context is never reckoned while the template is compiled.
        return pass_context(lambda _context, value: meter(value))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Only what is listed: of a number, say, `to_bytes` would be as bad as `__class__`."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        if isinstance(obj, LoopContext):
            return attr in _LOOP_PARTS
        return attr in METHODS.get(type(obj), ())

    def wrap_str_format(self, value: Any) -> None:
        """No `str.format`: a width in it makes any length of text."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation, with its cost seen before it and after."""
        self.meter.before(operator, left, right)
        return self.meter.making(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call of a method, a macro or one of the few functions."""
        whose, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(whose, str) and name == "replace":
            return __self._replace(whose, *args, **kwargs)
        return __self.meter.making(super().call(__context, __obj, *args, **kwargs))

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(text)
        growth = max(len(new) - len(old), 0)
        self.meter.grown(growth, text.count(old) if growth else 0)
        return self.meter.making(text.replace(old, new, -1 if count is None else count))

    def _join(self, values: Iterable[Any], d: str = "", attribute: None = None) -> str:
        if attribute is not None:
            raise TemplateFault("it joins attributes, which chat templates do not need")
        texts = [str(value) for value in self.meter.looping(values)]
        self.meter.grown(len(d) + 1, len(texts))
        self.meter.grown(sum(map(len, texts)), 1)
        return d.join(texts)

    def _indent(self, text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
        if not 0 <= width <= MOST_WIDTH:
            raise TemplateFault(f"it indents by more than {MOST_WIDTH}")
        text = str(text)
        self.meter.grown(width, text.count("\n") + 1)
        lines = text.split("\n")
        space = " " * width
        return "\n".join(
            line if (not index and not first) or not (line or blank) else space + line
            for index, line in enumerate(lines)
        )


def _same(value: Any) -> Any:
    return value


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: without the escapes for HTML that Jinja's own has."""
    if indent is not None and not 0 <= indent <= MOST_WIDTH:
        raise TemplateFault(f"it indents by more than {MOST_WIDTH}")
    if separators is not None and max(map(len, separators)) > MOST_WIDTH:
        raise TemplateFault(f"it separates by more than {MOST_WIDTH} characters")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _refuse(message: str = "") -> None:
    raise TemplateRefusal(str(message)[:500])


def _strftime_now(form: str) -> str:
    """Today in English, by the few letters that the page knows too."""
    now = datetime.now()
    month, day = MONTHS[now.month - 1], DAYS[now.weekday()]
    values = {"B": month, "b": month[:3], "A": day, "a": day[:3], "%": "%"}
    return re.sub(
        "%([YmdHMSBbAa%])",
        lambda found: values.get(found[1]) or now.strftime(found[0]),
        str(form)[:100],
    )
