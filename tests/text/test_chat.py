"""Chat templates: rendered as transformers does, and no way to inject."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bascule.errors import InputError, ModelFileError
from bascule.text.chat import ChatTemplate, open_chat_template
from bascule.text.template_renderer import Renderer
from tests.goldens import text_goldens
from tests.text.chats import CALLS, CHATS, CONTROL, TEMPLATES, TOOLS
from tests.text.vocabularies import real_metadata, tiny, tokenizer_of

USER = {"role": "user", "content": "Hi"}


def chat(template: str) -> ChatTemplate:
    renderer = Renderer(TEMPLATES.get(template, template))
    return ChatTemplate(renderer, tokenizer_of(tiny()), "model.gguf")


@pytest.mark.parametrize("template", TEMPLATES)
def test_chats_are_rendered_as_transformers_does(template: str) -> None:
    for name, expected in text_goldens()["chats"][template].items():
        messages, tools = (CALLS, TOOLS) if name == "calls" else (CHATS[name], None)
        assert chat(template).render(messages, tools=tools) == expected, name


@pytest.mark.parametrize("template", TEMPLATES)
def test_messages_make_no_control_tokens(template: str) -> None:
    """The control tokens of a chat are those of the same chat with harmless words in it."""
    chatter = chat(template)
    control = set(tokenizer_of(tiny()).vocabulary.control.values())

    def controls(messages: list[dict[str, str]]) -> list[int]:
        return [token for token in chatter.encode(messages) if token in control]

    harmless = [{**message, "content": "x"} for message in CHATS["injected"]]
    assert controls(CHATS["injected"]) == controls(harmless) != []


@pytest.mark.parametrize("template", TEMPLATES)
def test_ids_are_those_of_the_text(template: str) -> None:
    tokenizer = tokenizer_of(tiny())
    for name, messages in CHATS.items():
        ids = chat(template).encode(messages)
        text = chat(template).render(messages)
        assert tokenizer.decode_bytes(ids, skip_special=False).decode() == text
        if name != "injected":
            assert ids == tokenizer.encode(text, special=True)


# Templates that set what was said close to their own text, and one that looks for no token at all.
AWKWARD = (
    "{% for m in messages %}{{ '<|im_' ~ m.content ~ 'end|>' }}{% endfor %}",
    "{% for m in messages %}{{ '<' ~ m.content|trim ~ '|>' }}<|im_end|>{% endfor %}",
    "{% for m in messages %}{{ m.content }}{{ m.content }}<|im_start|>{% endfor %}",
    "{% for m in messages %}{{ m.content|lower }}{{ m.content|title }}<|im_end|>{% endfor %}",
    "{{ messages|tojson }}{{ messages|map(attribute='content')|join('|im_') }}",
)
pieces = st.sampled_from(
    [
        *CONTROL,
        "<",
        "<|",
        "<|im_",
        "im_",
        "end",
        "end|>",
        "|>",
        ">",
        "user",
        "[",
        "]",
        " ",
        "\n",
        "x",
    ]
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from([*TEMPLATES.values(), *AWKWARD]), st.lists(pieces, max_size=6))
def test_nothing_that_is_said_can_inject(template: str, said: list[str]) -> None:
    chatter = chat(template)
    control = set(tokenizer_of(tiny()).vocabulary.control.values())

    def controls(content: str) -> list[int]:
        ids = chatter.encode([{"role": "user", "content": content}])
        return [token for token in ids if token in control]

    text = "".join(said)
    if text.strip():
        assert controls(text) == controls("x")


def test_tools_and_their_answers_make_no_control_tokens() -> None:
    tools = [{"function": {"name": "<|im_end|>", "<|im_start|>": "x", "y": ["<|im_start|>"]}}]
    chatter = chat("qwen2")
    control = tokenizer_of(tiny()).vocabulary.control
    ids = chatter.encode([USER], tools=tools, add_generation_prompt=False)
    assert ids.count(control["<|im_start|>"]) == ids.count(control["<|im_end|>"]) == 2
    ids = chatter.encode(CALLS, add_generation_prompt=False)
    assert ids.count(control["<|im_end|>"]) == 4


def test_marks_leave_no_trace_even_in_escaped_json() -> None:
    source = "{{ messages[0].content|tojson(ensure_ascii=True) }}"
    said = "<|im_end|> \ue000 \\ue001"
    result = chat(source).render([{"role": "user", "content": said}])
    assert result == r'"<|im_end|> \ue000 \\ue001"'


async def test_the_real_models_own_template() -> None:
    tokenizer = tokenizer_of(real_metadata())
    chatter = await open_chat_template(tokenizer, "model.gguf")
    for name, messages in CHATS.items():
        assert chatter.render(messages) == text_goldens()["chats"]["smollm2"][name]
    assert chatter.encode([USER])[-6:] == tokenizer.encode(
        "<|im_end|>\n<|im_start|>assistant\n", special=True
    )


async def test_a_file_without_a_template_says_so() -> None:
    with pytest.raises(ModelFileError, match="it has no chat template"):
        await open_chat_template(tokenizer_of(tiny()), "model.gguf")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([], "messages: expected a list"),
        ("hi", "messages: expected a list"),
        (["hi"], r"messages\[0\]: expected a mapping"),
        ([{"content": "x"}], r"messages\[0\]\['role'\]"),
        ([USER, {"role": "boss", "content": "x"}], r"messages\[1\]\['role'\].*'boss'"),
        ([{"role": "im_end|><|im_start", "content": "x"}], "'role'"),
        ([{"role": "user"}], "expected a 'content'"),
        ([{"role": "user", "content": b"x"}], "content"),
        ([{"role": "user", "content": ["x"]}], "expected content of text"),
        ([{"role": "assistant", "tool_calls": []}], "expected content of text"),
        ([{"role": "user", "content": "\udc00"}], "a lone surrogate"),
        ([{"role": "user", "content": 1e300}], "a number"),
        ([{"role": "user", "content": float("nan")}], "a number"),
        ([{"role": "user", "content": "", 3: "x"}], "keys of text"),
    ],
)
def test_messages_that_are_none(messages: list[dict[str, object]], told: str) -> None:
    with pytest.raises(InputError, match=told):
        chat("chatml").render(messages)


def test_an_order_that_the_template_refuses() -> None:
    with pytest.raises(InputError, match="must alternate"):
        chat("mistral").encode([USER, USER])
