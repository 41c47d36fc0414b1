"""What crosses the bridge as text: many texts, and texts that look like templates."""

from __future__ import annotations

import json
from collections.abc import Callable

from bascule.folders import models_folder
from bascule.text.tokenizer_native import NativeTokenizer
from e2e.conftest import Site
from e2e.engines import Engine, Page, wait_for


def test_long_texts_that_begin_like_the_template(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    """Cutting must not take the text's own [CLS] or [SEP] for the template's."""
    texts = ["[CLS][CLS] a " + "b c " * 300, "[SEP] x " + "y z " * 300, "[CLS] [SEP] " * 300]
    data = (models_folder() / "all-MiniLM-L6-v2" / "tokenizer.json").read_bytes()
    expected = NativeTokenizer.from_json(data, 256).encode(texts)
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    code = f"""
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
data = await (await pyfetch("/models/all-MiniLM-L6-v2/tokenizer.json")).bytes()
json.dumps((await open_tokenizer(data, 256)).encode({texts!r}))
"""
    assert json.loads(page.run("(code) => lab.run(code)", code)) == expected


def test_more_texts_than_a_call_takes_arguments(
    engine: Engine, site: Site, new_page: Callable[[str], Page]
) -> None:
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    code = """
import json
from pyodide.http import pyfetch
from bascule.text import open_tokenizer
data = await (await pyfetch("/goldens/tiny-bert/tokenizer.json")).bytes()
found = (await open_tokenizer(data, 16)).encode(["w4"] * 150_000 + ["w4 w5"])
json.dumps([len(found), found[0] == found[-2], len(found[-1]) - len(found[0])])
"""
    assert json.loads(page.run("(code) => lab.run(code)", code)) == [150_001, True, 1]
