"""What crosses the bridge as text: many texts, and texts that look like templates."""

from __future__ import annotations

import json
import random

import pytest

from bascule.base.folders import models_folder
from bascule.text.chat import ChatTemplate
from bascule.text.template_renderer import Renderer
from bascule.text.tokenizer_native import NativeTokenizer
from e2e.engines import Page
from tests.goldens import text_goldens
from tests.text.chats import CALLS, CHATS, TEMPLATES, TOOLS
from tests.text.strings import random_text
from tests.text.test_template_hostile import HOSTILE
from tests.text.vocabularies import HEADER_NBYTES, MODEL, real_file, real_metadata, tokenizer_of


@pytest.mark.one_engine
def test_long_texts_that_begin_like_the_template(shared_lab: Page) -> None:
    """Cutting must not take the text's own [CLS] or [SEP] for the template's."""
    texts = ["[CLS][CLS] a " + "b c " * 300, "[SEP] x " + "y z " * 300, "[CLS] [SEP] " * 300]
    data = (models_folder() / "all-MiniLM-L6-v2" / "tokenizer.json").read_bytes()
    expected = NativeTokenizer.from_json(data, 256).encode(texts)
    code = f"""
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
data = await (await pyfetch("/models/all-MiniLM-L6-v2/tokenizer.json")).bytes()
json.dumps((await open_tokenizer(data, 256)).encode({texts!r}))
"""
    assert json.loads(shared_lab.run("(code) => lab.run(code)", code)) == expected


def test_more_texts_than_a_call_takes_arguments(shared_lab: Page) -> None:
    code = """
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
data = await (await pyfetch("/goldens/tiny-bert/tokenizer.json")).bytes()
found = (await open_tokenizer(data, 16)).encode(["w4"] * 150_000 + ["w4 w5"])
json.dumps([len(found), found[0] == found[-2], len(found[-1]) - len(found[0])])
"""
    assert json.loads(shared_lab.run("(code) => lab.run(code)", code)) == [150_001, True, 1]


# Opens the real model's tokenizer in the page, from the file's first bytes.
OPENED = f"""
import json
from pyodide.http import pyfetch
from bascule.errors import BasculeError
from bascule.text.chat import ChatTemplate
from bascule.text.language import open_text_tokenizer
from bascule.text.streaming import Detokeniser
from bascule.text.jinja_library import provide_jinja
from bascule.text.vocabulary import read_vocabulary
from bascule.weights.gguf import parse_gguf
url = "/models/{MODEL}/FILE"
answer = await pyfetch(url, headers={{"Range": "bytes=0-{HEADER_NBYTES - 1}"}})
nbytes = int(answer.headers["content-range"].rpartition("/")[2])
provide_jinja()
from bascule.text.template_renderer import Renderer
header = parse_gguf(await answer.bytes(), nbytes, "model.gguf")
tokenizer = await open_text_tokenizer(read_vocabulary(header.metadata, "model.gguf"))
"""


def opened() -> str:
    return OPENED.replace("FILE", real_file().name)


@pytest.mark.one_engine
def test_a_language_models_ids_and_chats_equal_the_native_ones(shared_lab: Page) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    source = random.Random(seed)
    texts = [*text_goldens()["texts"], *(random_text(source) for _ in range(300))]
    native = tokenizer_of(real_metadata())
    plain = [native.encode(text, special=False) for text in texts]
    special = [native.encode(text, special=True) for text in texts]
    streamed = [native.decode_bytes(row).decode(errors="replace") for row in plain]
    asked = [
        *((t, chat, None) for t in TEMPLATES.values() for chat in CHATS.values()),
        (TEMPLATES["qwen2"], CALLS, TOOLS),
    ]
    chats = [
        ChatTemplate(Renderer(template), native, "model.gguf").encode(messages, tools=tools)
        for template, messages, tools in asked
    ]
    code = f"""{opened()}
texts, asked = json.loads({json.dumps(json.dumps([texts, asked]))})
plain = [tokenizer.encode(text, special=False) for text in texts]
special = [tokenizer.encode(text, special=True) for text in texts]
streamed = []
for row in plain:
    stream = Detokeniser(tokenizer)
    streamed.append("".join(stream.push(token) for token in row) + stream.flush())
chats = []
for template, messages, tools in asked:
    chats.append(ChatTemplate(Renderer(template), tokenizer, "m").encode(messages, tools=tools))
json.dumps([plain, special, streamed, chats])
"""
    result = json.loads(shared_lab.run("(code) => lab.run(code)", code))
    assert result == [plain, special, streamed, chats]


def test_hostile_templates_fail_and_the_page_lives(shared_lab: Page) -> None:
    """Above all those that would end WebAssembly's stack."""
    names = (
        *("recursion", "double recursion", "parentheses", "brackets", "ifs", "depth", "lists"),
        *("deep json", "many operands", "giant range", "nested loops", "times", "wide number"),
    )
    code = f"""
import json
from bascule.text.jinja_library import provide_jinja
provide_jinja()
from bascule.text.template_limits import TemplateFault
from bascule.text.template_renderer import Renderer
found = []
for source in json.loads({json.dumps(json.dumps([HOSTILE[name] for name in names]))}):
    try:
        found.append(Renderer(source).render({{"messages": []}}))
    except TemplateFault:
        found.append(None)
json.dumps([found, Renderer("{{{{ 1 + 1 }}}}").render({{}})])
"""
    result = json.loads(shared_lab.run("(code) => lab.run(code)", code))
    assert result == [[None] * len(names), "2"]
