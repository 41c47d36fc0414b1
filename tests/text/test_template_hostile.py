"""Templates that an enemy wrote: no way out of the sandbox and no endless work."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from bascule.text.template_limits import LIMITS, MAX_TEMPLATE_CHARACTERS, TemplateFault
from bascule.text.template_renderer import Renderer

SAID: dict[str, object] = {"messages": [{"role": "user", "content": "Hi"}]}
DOUBLED = "{% set x = 'aaaaaaaa' %}"
BIG = (
    "{% set n = namespace(a='aaaaaaaa') %}{% for i in range(18) %}{% set n.a = n.a ~ n.a %}"
    "{% endfor %}{% set a = n.a ~ 'a' %}{% set b = 'a' ~ n.a %}"
)
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
    **{
        f"compare {sign}": BIG + "{% for i in range(60000) %}{% if a " + sign + " b %}{% endif %}"
        "{% endfor %}"
        for sign in ("==", "!=", "<", "<=", ">", ">=", "in", "not in")
    },
    "compare lists": "{% set a = range(99999)|list %}{% set b = range(99999)|list %}"
    "{% for i in range(60000) %}{% if a == b %}{% endif %}{% endfor %}",
    "compare in lists": "{% set a = range(200000)|list %}"
    "{% for i in range(60000) %}{% if -1 in a %}{% endif %}{% endfor %}",
    "compare in maps": BIG + "{% for i in range(60000) %}{% if [a]|map('lower')|list == [b] %}"
    "{% endif %}{% endfor %}",
    "test eq": BIG + "{% for i in range(60000) %}{% if a is eq(b) %}{% endif %}{% endfor %}",
    "select eq": BIG + "{% set l = [{'a': a}] %}{% for i in range(60000) %}"
    "{% set y = l|selectattr('a', 'equalto', b)|list|length %}{% endfor %}",
    "test lower": BIG + "{% for i in range(60000) %}{% if a is lower %}{% endif %}{% endfor %}",
    "strip": BIG + "{% for i in range(60000) %}{% set y = a.strip('a') %}{% endfor %}",
    "strip spaces": "{% set n = namespace(a='        ') %}{% for i in range(19) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{% for i in range(60000) %}{% set y = n.a|trim %}"
    "{% endfor %}",
    "strip a large set": BIG + "{% for i in range(60000) %}{% set y = a.strip(b) %}{% endfor %}",
    "starts": BIG + "{% for i in range(60000) %}{% set y = a.startswith(b) %}{% endfor %}",
    "split": BIG + "{% set y = a.split('a') %}",
    "split at spaces": "{% set n = namespace(a='a ') %}{% for i in range(20) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{% set y = n.a.split() %}",
    "many indented lines": "{% set n = namespace(a='\n') %}{% for i in range(22) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{{ n.a|indent(64, true, true)|length }}",
    "one slice of a large text": BIG + "{% for i in range(60000) %}{% set y = a[:2000000] %}"
    "{% endfor %}",
    "many operands": BIG + "{{ (" + " ~ ".join(["a"] * 9000) + ")|length }}",
    "sort": BIG + "{% set l = [a, b, a, b, a, b]  %}{% for i in range(60000) %}"
    "{% set y = l|sort %}{% endfor %}",
    "unique": BIG + "{% set l = [a, b] %}{% for i in range(60000) %}"
    "{% set y = l|unique|list|length %}{% endfor %}",
    "sort by a long path": "{% set l = [{'a': 1}] * 2000 %}{% set y = l|sort(attribute='"
    + "a." * 900
    + "a') %}{% for i in range(9999) %}{% set y = l|sort(attribute='a') %}{% endfor %}",
    "dictsort": BIG + "{% set l = {a: 1, b: 2} %}{% for i in range(60000) %}"
    "{% set y = l|dictsort|length %}{% endfor %}",
    "deep json": "{% set n = namespace(a=[1] * 8000) %}{% for i in range(30) %}"
    "{% set n.a = [n.a] %}{% endfor %}{% for i in range(9999) %}"
    "{% set y = n.a|tojson(indent=64)|length %}{% endfor %}",
    "long bodies": "{% for i in range(200000) %}{% for j in range(200000) %}"
    + "{% if i %}{% endif %}" * 2500
    + "{% endfor %}{% endfor %}",
    "long macros": "{% macro m() %}"
    + "{% if 1 %}{% endif %}" * 2500
    + "{% endmacro %}{% for i in range(200000) %}{% set y = m() %}{% endfor %}",
    "filtered loops": "{% for i in range(200000) %}{% for j in range(200000) if j < 0 %}"
    "{% endfor %}{% endfor %}",
    "a long number": "{% set n = namespace(a='9') %}{% for i in range(22) %}"
    "{% set n.a = n.a ~ n.a %}{% endfor %}{% for i in range(60000) %}{% set y = n.a|int %}"
    "{% endfor %}",
    "loose equality": "{% set a = range(99999)|list %}"
    "{% for i in range(60000) %}{% if a == 'x' %}{% endif %}{% endfor %}{{ missing.x }}",
    "output": "{% for i in range(200000) %}" + "x" * 2000 + "{% endfor %}",
    "parentheses": "{{ " + "(" * 20000,
    "brackets": "{{ " + "[" * 9000 + "]" * 9000 + " }}",
    "ifs": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "unclosed": "{% for",
    "no end": "{% for i in [1] %}",
    "undefined": "{{ a.b.c }}",
    "long": " " * (MAX_TEMPLATE_CHARACTERS + 1),
}
# What leads nowhere may be nothing, as any unknown name is, instead of an error.
EMPTY = {"class", "subscript", "globals", "of a method", "of a namespace", "of a loop"}


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """All the time in the world: what stops a template is its work, as it is counted."""
    limits = replace(LIMITS, seconds=1e9)
    for module in ("template_renderer", "template_limits"):
        monkeypatch.setattr(f"bascule.text.{module}.LIMITS", limits)


@pytest.mark.usefixtures("endless")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_stopped_by_its_work(name: str) -> None:
    if name in EMPTY:
        assert rendered(HOSTILE[name]) in ("", None)
    else:
        assert rendered(HOSTILE[name]) is None


def test_time_stops_what_was_counted_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = replace(LIMITS, seconds=0.0)
    for module in ("template_renderer", "template_limits"):
        monkeypatch.setattr(f"bascule.text.{module}.LIMITS", hurried)
    source = "{% for i in range(9999) %}{% if i == 1 %}{% endif %}{% endfor %}"
    with pytest.raises(TemplateFault, match="longer than 0 s"):
        Renderer(source).render(SAID)


def test_comparisons_in_bodies_of_a_real_size_are_no_attack() -> None:
    text = "long " * 20_000
    said = {"messages": [{"role": ("user", "tool")[i % 2], "content": text} for i in range(60)]}
    source = (
        "{% for m in messages %}{% if m.role == 'user' and '</think>' not in m.content %}"
        "{{ m.content|trim }}{% elif m.content.startswith('long') %}{{ m['content'].strip('\\n') }}"
        "{% endif %}{{ m.content.split('</think>')[-1] | length }}{% endfor %}"
    )
    expected = (text.strip() + "100000" + text + "100000") * 30
    assert Renderer(source).render(said) == expected


def rendered(source: str) -> str | None:
    try:
        return Renderer(source).render(SAID)
    except TemplateFault:
        return None


def test_a_template_cannot_change_what_it_is_given() -> None:
    for verb in ("append(1)", "clear()", "pop()", "extend([1])"):
        with pytest.raises(TemplateFault):
            Renderer("{{ messages." + verb + " }}").render(SAID)
    for verb in ("update(a=1)", "clear()", "setdefault('a', 1)"):
        with pytest.raises(TemplateFault):
            Renderer("{{ messages[0]." + verb + " }}").render(SAID)
    assert SAID == {"messages": [{"role": "user", "content": "Hi"}]}


def test_a_second_rendering_starts_anew() -> None:
    renderer = Renderer("{% for i in range(200000) %}{% endfor %}x")
    assert [renderer.render(SAID) for _ in range(9)] == ["x"] * 9


GOOD = {
    "{% for m in messages %}{% set x = m.content.replace('H', 'h') %}{{ x }}{% endfor %}": "hi",
    "{{ [1, 'a', none] == [1, 'a', none] }} {{ {'a': [1]} != {'a': [2]} }}": "True True",
    "{{ [1] == 'x' }} {{ 1 == '1' }} {{ 1 == true }} {{ missing == none }}": "False False True "
    "False",
    "{{ 'a' in ['a', 'b'] }} {{ [1] in [[1], 2] }} {{ 'role' in messages[0] }}": "True True True",
    "{{ 'x' not in 'abc' }} {{ 1 not in [2, 3] }} {{ 2 < 3 }} {{ 3 >= 3 }}": "True True True True",
    "{{ ' a '|trim }}|{{ 'xxax'.strip('xy') }}|{{ '😀a😀'.lstrip('😀') }}": "a|a|a😀",
    "{{ ['b', 'a', 'b']|unique|list|length }} {{ ['b', 'A']|sort|join }}": "2 Ab",
    "{{ 'a  b c'.split() | join('-') }} {{ 'a,b,c'.split(',', 1)|last }}": "a-b-c b,c",
    "{{ 'a\n\nb'|indent(2) }}": "a\n\n  b",
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


def test_what_chat_templates_are_written_with_works() -> None:
    for source, expected in GOOD.items():
        assert Renderer(source).render(SAID) == expected, source


def test_today() -> None:
    source = "{{ strftime_now('%Y-%m-%d %d %b %Y %A %B %H %% %1000d') }}"
    before = datetime.now()
    result = Renderer(source).render({})
    form = "%Y-%m-%d %d %b %Y %A %B %H % %1000d"
    assert result in (english(form, before), english(form, datetime.now()))


def english(form: str, day: datetime) -> str:
    """`strftime` in the C locale, which pytest runs in."""
    return day.strftime(form.replace("% %", "%% %%"))
