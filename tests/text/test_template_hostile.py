"""Templates that an enemy wrote: no way out of the sandbox and no endless work, on both sides."""

from __future__ import annotations

import time

import pytest

from bascule.text.template_limits import MOST_TEMPLATE_CHARACTERS, TemplateFault
from bascule.text.template_native import NativeRenderer
from tests.text.page_half import answers

SAID: dict[str, object] = {"messages": [{"role": "user", "content": "Hi"}]}
DOUBLED = "{% set x = 'aaaaaaaa' %}"
HOSTILE = {
    "class": "{{ ''.__class__.__mro__ }}",
    "subscript": "{{ ''['__class__'] }}",
    "attr": "{{ ''|attr('__class__') }}",
    "globals": "{{ raise_exception.__globals__ }}{{ range.__self__ }}",
    "of a method": "{{ ''.upper.__self__.__class__ }}",
    "of a namespace": "{{ namespace(x=1).__dict__ }}{{ namespace.__init__.__globals__ }}",
    "of a loop": "{% for i in [1] %}{{ loop._iterator }}{{ loop.__class__ }}{% endfor %}",
    "by map": "{{ messages|map(attribute='__class__.__mro__')|list }}{{ [''.__class__] }}",
    "constructor": "{{ ''.constructor.constructor('return 1')() }}",
    "prototype": "{{ messages.__proto__.polluted() }}",
    "format": "{{ '{0.__class__}'.format(1) }}",
    "wide format": "{{ '{:1000000000}'.format(1) }}",
    "wide percent": "{{ '%1000000000d' % 1 }}",
    "wide number": "{{ (1).to_bytes(1000000000) }}",
    "other template": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}",
    "block": "{% block a %}{{ self.a() }}{% endblock %}",
    "unknown filter": "{{ 'a'|center(1000000000) }}",
    "unknown test": "{{ 'a' is divisibleby(3) }}",
    "lipsum": "{{ lipsum(n=1000000)|upper }}{{ lipsum.__globals__ }}",
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "broken-off loops": "{% for i in range(9999) %}{% for j in range(200000) %}{% break %}"
    "{% endfor %}{% endfor %}",
    "giant range": "{% for i in range(1000000000000) %}{% endfor %}",
    "range back": "{{ range(0, -1000000000000, -1)|list }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "double recursion": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "times": "{{ 'a' * 10000000000 }}",
    "times a list": "{{ ([1] * 10000000000)|length }}",
    "power": "{{ 9 ** 999999999 }}",
    "squares": "{% set x = 99999999999 %}" + "{% set x = x * x %}" * 40 + "{{ x }}",
    "concat": DOUBLED + "{% set x = x ~ x %}" * 60,
    "plus": DOUBLED + "{% set x = x + x %}" * 60,
    "blocks": DOUBLED + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60,
    "filter blocks": DOUBLED
    + "{% set x %}{% filter upper %}{{ x }}{{ x }}{% endfilter %}{% endset %}" * 60,
    "join": DOUBLED + "{% set x = [x, x]|join %}" * 60,
    "join by": DOUBLED + "{% set x = x|join(x) %}" * 9,
    "replace": DOUBLED + "{% set x = x|replace('a', x) %}" * 9,
    "replace method": DOUBLED + "{% set x = x.replace('', x) %}" * 9,
    "macro": DOUBLED + "{% macro d(x) %}{{ x }}{{ x }}{% endmacro %}" + "{% set x = d(x) %}" * 60,
    "indent": "{{ 'a\nb'|indent(1000000000) }}",
    "json indent": "{{ [1]|tojson(indent=1000000000) }}",
    "lists": "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x|tojson }}",
    "mappings": "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x|string }}",
    "depth": "{% set n = namespace(x=[]) %}"
    + "{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}",
    "slices": "{% set n = namespace(x='ab') %}"
    + "{% for i in range(21) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
    + "{% for i in range(99999) %}{% set y = n.x[1:] %}{% endfor %}",
    "output": "{% for i in range(200000) %}" + "x" * 2000 + "{% endfor %}",
    "parentheses": "{{ " + "(" * 20000,
    "brackets": "{{ " + "[" * 9000 + "]" * 9000 + " }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "unclosed": "{% for",
    "no end": "{% for i in [1] %}",
    "undefined": "{{ a.b.c }}",
    "long": " " * (MOST_TEMPLATE_CHARACTERS + 1),
}
# What leads nowhere may be nothing, as any unknown name is, instead of an error.
EMPTY = {"class", "subscript", "globals", "of a method", "of a namespace", "of a loop"}
# The page's parser takes this many; it has no limit of Python's kind, and it is no danger.
PAGE_TAKES = {"ifs", "long", "brackets"}
MOST_S = 8.0


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_fails_soon(name: str) -> None:
    began = time.perf_counter()
    if name in EMPTY:
        assert rendered(HOSTILE[name]) in ("", None)
    else:
        assert rendered(HOSTILE[name]) is None
    assert time.perf_counter() - began < MOST_S


def rendered(source: str) -> str | None:
    try:
        return NativeRenderer(source).render(SAID)
    except TemplateFault:
        return None


@pytest.mark.parametrize("name", sorted(HOSTILE.keys() - PAGE_TAKES))
def test_it_fails_soon_in_the_page(name: str) -> None:
    began = time.perf_counter()
    (found,) = answers([(HOSTILE[name], SAID)])
    assert "fault" in found or (found["text"] == "" and name in EMPTY), found["text"][:80]
    assert time.perf_counter() - began < MOST_S


def test_a_template_cannot_change_what_it_is_given() -> None:
    for verb in ("append(1)", "clear()", "pop()", "extend([1])"):
        with pytest.raises(TemplateFault):
            NativeRenderer("{{ messages." + verb + " }}").render(SAID)
    for verb in ("update(a=1)", "clear()", "setdefault('a', 1)"):
        with pytest.raises(TemplateFault):
            NativeRenderer("{{ messages[0]." + verb + " }}").render(SAID)
    assert SAID == {"messages": [{"role": "user", "content": "Hi"}]}


def test_a_second_rendering_starts_anew() -> None:
    renderer = NativeRenderer("{% for i in range(200000) %}{% endfor %}x")
    assert [renderer.render(SAID) for _ in range(9)] == ["x"] * 9


GOOD = {
    "{{ messages[0].content.strip('H') }}": "i",
    "{{ ' \u0085a\ufeff '|trim }}|": "a\ufeff|",
    "{{ 'aXXb'.lstrip('a').rstrip('bX') }}|": "|",
    "{{ none }} {{ true }} {{ 1 }} {{ 1.5 }} {{ missing }}": "None True 1 1.5 ",
    "{% generation %}x{% endgeneration %}": "x",
    "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}": "012",
    "{% for i in range(4) if i != 2 %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}"
    "{% endfor %}": "03",
    "{{ {'a': [1, 'é']}|tojson }}{{ [1, {'a': 2}]|tojson(indent=2) }}": '{"a": [1, "é"]}[\n  1,\n'
    '  {\n    "a": 2\n  }\n]',
    "{% macro m(a, b='y') %}{{ a }}{{ b }}{% endmacro %}{{ m('x') }}{{ m('x', b='z') }}": "xyxz",
    "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}"
    "{{ ns.n }}": "3",
    "{{ 'a,b'.split(',')|last ~ ('xay'|replace('a', 'b')) }}": "bxby",
    "{{ messages|selectattr('role', 'equalto', 'user')|list|length }}": "1",
    "{{ messages|map(attribute='content')|join(', ') }}": "Hi",
    "{{ 'b' if 'user' in messages[0].role else 'c' }}{{ messages[-1]['content'][0] }}": "bH",
    "  {% if true %}\n  a\n  {% endif %}\nb": "  a\nb",
    "{{- 'a' -}}  \n {#- c -#} \n b": "ab",
    "{{ (x | default('d')) ~ ('' or 'e') ~ (not 1) }}": "deFalse",
    "{{ messages[0].get('name', 'n') }}": "n",
    "{% for k, v in messages[0].items() %}{{ k }}{% endfor %}": "rolecontent",
}


def test_what_chat_templates_are_written_with_works_on_both_sides() -> None:
    for source, expected in GOOD.items():
        assert NativeRenderer(source).render(SAID) == expected, source
    found = [answer.get("text", answer) for answer in answers([(source, SAID) for source in GOOD])]
    assert dict(zip(GOOD, found, strict=True)) == GOOD


def test_today() -> None:
    source = "{{ strftime_now('%Y-%m-%d %d %b %Y %A %B %H %% %1000d') }}"
    before = NativeRenderer(source).render({})
    (found,) = answers([(source, {})])
    assert found["text"] in (before, NativeRenderer(source).render({}))
    assert before.endswith("% %1000d")
