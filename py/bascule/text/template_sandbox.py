"""The sandbox of chat templates: Jinja's own with a meter.

Each filter, test, method and operator that costs more than one step goes through the meter first.
"""

from __future__ import annotations

import functools
import json
import operator
import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from datetime import datetime
from types import MappingProxyType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from bascule.text.template_limits import (
    DAYS,
    FILTERS,
    LIMITS,
    MAX_WIDTH,
    METHODS,
    MONTHS,
    TESTS,
    TemplateFault,
    TemplateRefusal,
)
from bascule.text.template_meter import Meter

# The meter's own filters, which `template_renderer` inserts into a parsed template.
LOOPING, MAKING, PUTTING = "bascule_looping", "bascule_making", "bascule_putting"
COMPARING, JOINING, RUNNING = "bascule_comparing", "bascule_joining", "bascule_running"

_LOOP_PARTS = frozenset(
    ["first", "index", "index0", "last", "length", "nextitem", "previtem", "revindex", "revindex0"]
)
_THROUGH = frozenset(("list", "map", "rejectattr", "selectattr", "sort", "unique"))
# The names of comparisons in Jinja's parser.
_COMPARISONS: MappingProxyType[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {
        **{"eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "lteq": operator.le},
        **{"gt": operator.gt, "gteq": operator.ge},
        "in": lambda left, right: left in right,
        "notin": lambda left, right: left not in right,
    }
)
_JINJAS_OWN = frozenset(("_loop_vars", "_block_vars"))
_MAX_ATTRIBUTE = 1000
_MAX_NUMBER_CHARACTERS = 100
_MAX_STRIPPED = 64
_MAX_TITLE = 1 << 20


class _Space(Namespace):
    """A namespace whose text is its name: its contents may be endless."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Generation(Extension):
    """`{% generation %}` marks a model's answer, for training; here it is its body."""

    tags = {"generation"}  # noqa: RUF012  (the base class has it so)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return only its statements."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class MeteredEnvironment(ImmutableSandboxedEnvironment):
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
        ours = {
            "indent": self._indent,
            "join": self._join,
            "replace": self._replace,
            "safe": _same,
            "tojson": self._tojson,
            "trim": functools.partial(self._strip, "strip"),
        }
        known = {name: ours.get(name, self.filters[name]) for name in FILTERS}
        tests = {name: self.tests[name] for name in TESTS}
        self.filters = {name: self._metered(name, each) for name, each in known.items()} | {
            LOOPING: self._with_meter(lambda value, size: self.meter.looping(value, size)),
            MAKING: self._with_meter(lambda value: self.meter.making(value)),
            PUTTING: self._with_meter(lambda value: self.meter.putting(value)),
            COMPARING: self._with_meter(self._compared),
            JOINING: self._with_meter(lambda *values: self.meter.joining(values[1:])),
            RUNNING: self._with_meter(lambda size: self.meter.running(size)),
        }
        equal = functools.partial(self._compared, sign="eq")
        cased = {name: self._reading(tests[name]) for name in ("lower", "upper")}
        self.tests = {**tests, "eq": equal, "equalto": equal, **cased}
        self.globals = {
            "namespace": _Space,
            "raise_exception": _refuse,
            "range": lambda *bounds: self.meter.range(*bounds),
            "strftime_now": _strftime_now,
        }

    def _with_meter(self, verb: Callable[..., Any]) -> Callable[..., Any]:
        # What takes the context is never evaluated while the template is compiled.
        return pass_context(lambda _context, *values: verb(*values))

    def _reading(self, test: Callable[..., Any]) -> Callable[..., Any]:
        def read(value: Any) -> Any:
            self.meter.reading(self.meter.weight(value))
            return test(value)

        return read

    def _metered(self, name: str, of: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter with its cost counted before and after it, however it is called."""
        at = 1 if hasattr(of, "jinja_pass_arg") else 0  # the environment or context comes first

        @functools.wraps(of, assigned=(), updated=("__dict__",))
        def metered(*args: Any, **named: Any) -> Any:
            value = self._before(name, args[at], args[at + 1 :], named)
            return self.meter.making(of(*args[:at], value, *args[at + 1 :], **named))

        return metered

    def _before(self, name: str, value: Any, args: tuple[Any, ...], named: Any) -> Any:
        """Count what a filter traverses; return what it is to traverse."""
        if name in _THROUGH:
            value = self.meter.looping(value)
            self._check_attributes(name, value, args, named)
        elif name == "dictsort" and isinstance(value, dict):
            self.meter.sorting([*value.keys(), *value.values()])
        elif name in ("int", "float") and isinstance(value, str):
            if len(value) > _MAX_NUMBER_CHARACTERS:
                result = f"{_MAX_NUMBER_CHARACTERS} characters"
                raise TemplateFault(f"it reads a number of more than {result}")
        elif name == "title":
            self._check_title(value)
        return value

    def _check_attributes(
        self, name: str, values: list[Any], args: tuple[Any, ...], named: Any
    ) -> None:
        """Count the lookups and comparisons of a filter."""
        by_attribute = {"sort": args[2:3], "unique": args[1:2], "map": ()}.get(name, args[:1])
        attribute: Any = next(iter(by_attribute), named.get("attribute"))
        if isinstance(attribute, str):
            if len(attribute) > _MAX_ATTRIBUTE:
                raise TemplateFault(f"an attribute has more than {_MAX_ATTRIBUTE} characters")
            self.meter.running(len(values) * len(re.split("[.,]", attribute)))
        if name in ("sort", "unique"):
            parts: list[Any] = [None]
            if attribute is not None:
                parts = attribute.split(",") if isinstance(attribute, str) else [attribute]
            for part in parts:
                keys = values if part is None else [*map(make_attrgetter(self, part), values)]
                self.meter.sorting(keys)

    def _check_title(self, text: Any) -> None:
        if isinstance(text, str) and len(text) > _MAX_TITLE:
            raise TemplateFault(f"it makes a title of more than {_MAX_TITLE:,} characters")

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow only what is listed: `to_bytes` of a number would be as bad as `__class__`."""
        if isinstance(obj, Namespace):
            return not attr.startswith("_")
        if isinstance(obj, LoopContext):
            return attr in _LOOP_PARTS
        return attr in METHODS.get(type(obj), ())

    def wrap_str_format(self, value: Any) -> None:
        """Disable `str.format`: a width in it creates text of any length."""

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Run an operation, and count its cost before and after."""
        self.meter.before(operator, left, right)
        return self.meter.making(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a method, a macro or one of the few functions."""
        whose, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(whose, str):
            # What Jinja passes to macros with their variables.
            options = {key: each for key, each in kwargs.items() if key not in _JINJAS_OWN}
            match name:
                case "replace":
                    return __self._replace(whose, *args, **options)
                case "split":
                    return __self._split(whose, *args, **options)
                case "strip" | "lstrip" | "rstrip":
                    return __self._strip(name, whose, *args, **options)
                case "title":
                    __self._check_title(whose)
                case _:
                    pass
        if isinstance(whose, (str, dict)):
            __self.meter.reading(sum(map(__self.meter.weight, args)))
        result = super().call(__context, __obj, *args, **kwargs)
        if isinstance(result, (KeysView, ValuesView, ItemsView)):
            result = [*result]
        return __self.meter.making(result)

    def _compared(self, left: Any, right: Any, other: Any = None, *, sign: str = "") -> Any:
        """Run a comparison: a test with its sign, else an operator, whose sign comes second."""
        sign, right = (sign, right) if sign else (right, other)
        if sign in ("in", "notin") and isinstance(right, Iterator):
            right = self.meter.looping(right)
        self.meter.comparing(sign, left, right)
        return _COMPARISONS[sign](left, right)

    def _replace(self, text: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(text)
        self.meter.reading(2 * len(text))
        growth = max(len(new) - len(old), 0)
        self.meter.grown(growth, text.count(old) if growth else 0)
        return self.meter.making(text.replace(old, new, -1 if count is None else count))

    def _split(self, text: str, sep: str | None = None, maxsplit: int = -1) -> list[str]:
        self.meter.reading(len(text))
        # One more than allowed is enough to be rejected.
        limit = LIMITS.items + 1
        return self.meter.making(text.split(sep, limit if maxsplit < 0 else min(maxsplit, limit)))

    def _strip(self, name: str, text: Any, chars: str | None = None) -> str:
        text = str(text)
        if chars is None:
            self.meter.reading(len(text))
            return self.meter.making(getattr(text, name)())
        self.meter.reading(len(chars))
        chars = "".join(set(chars))
        if len(chars) > _MAX_STRIPPED:
            raise TemplateFault(f"it strips more than {_MAX_STRIPPED} different characters")
        # Each character is compared with all of these.
        self.meter.reading(len(text) * (1 + len(chars)))
        return self.meter.making(getattr(text, name)(chars))

    def _join(self, values: Iterable[Any], d: str = "", attribute: None = None) -> str:
        if attribute is not None:
            raise TemplateFault("it joins attributes, which chat templates do not need")
        return self.meter.joining(self.meter.looping(values), str(d))

    def _indent(self, text: Any, width: int = 4, first: bool = False, blank: bool = False) -> str:
        if not 0 <= width <= MAX_WIDTH:
            raise TemplateFault(f"it indents by more than {MAX_WIDTH}")
        text = str(text)
        n_lines = text.count("\n") + 1
        self.meter.grown(width, n_lines)
        if n_lines > LIMITS.items:
            raise TemplateFault(f"it indents more than {LIMITS.items:,} lines")
        space = " " * width
        return "\n".join(
            line if (not index and not first) or not (line or blank) else space + line
            for index, line in enumerate(text.split("\n"))
        )

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """Return JSON as transformers writes it: without the HTML escapes of Jinja's own."""
        if indent is not None and not 0 <= indent <= MAX_WIDTH:
            raise TemplateFault(f"it indents by more than {MAX_WIDTH}")
        if separators is not None and max(map(len, separators)) > MAX_WIDTH:
            raise TemplateFault(f"it separates by more than {MAX_WIDTH} characters")
        between = 2 if separators is None else max(map(len, separators))
        self.meter.grown(_space_of(value, indent or 0, between), 1)
        if sort_keys:
            self.meter.reading(8 * self.meter.weight(value))
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


def _space_of(value: Any, indent: int, between: int) -> int:
    """Return the most characters that JSON adds between the items of a value."""
    space = 0
    waiting = [(value, 1)]
    while waiting:
        result, depth = waiting.pop()
        if isinstance(result, (list, tuple, dict)):
            space += (len(result) + 1) * (1 + indent * depth + 2 * between)
            inner = result.values() if isinstance(result, dict) else result
            waiting.extend((each, depth + 1) for each in inner)
    return space


def _same(value: Any) -> Any:
    return value


def _refuse(message: str = "") -> None:
    raise TemplateRefusal(str(message)[:500])


def _strftime_now(form: str) -> str:
    """Return today's date in English, whatever the locale; only with known letters."""
    now = datetime.now()
    month, day = MONTHS[now.month - 1], DAYS[now.weekday()]
    values = {"B": month, "b": month[:3], "A": day, "a": day[:3], "%": "%"}
    return re.sub(
        "%([YmdHMSBbAa%])",
        lambda found: values.get(found[1]) or now.strftime(found[0]),
        str(form)[:100],
    )
