"""What crosses the bridge as bytes: bodies that break off, and texts that look like templates."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bascule.folders import models_folder
from bascule.text.tokenizer_native import NativeTokenizer
from e2e.conftest import Site
from e2e.engines import Engine, Page, wait_for

BODY = bytes(i % 251 for i in range(4000))


class Breaking(BaseHTTPRequestHandler):
    """Answers every range of BODY, spoiled as the path says."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        part = BODY[int(first) : int(last) + 1]
        self.send_response({"missing": 404, "broken": 500, "whole": 200}.get(kind, 206))
        sent = {"short": part[:1000], "dropped": part[:1000], "whole": BODY}.get(kind, part)
        promised = len(part) if kind == "dropped" else len(sent)
        self.send_header("Content-Length", str(promised))
        self._allow()
        self.wfile.write(sent)

    def do_OPTIONS(self) -> None:
        self.send_response(204)
        self._allow()

    def _allow(self) -> None:
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "Range")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Planned faults are no news."""


@pytest.fixture
def breaking() -> Iterator[str]:
    server = ThreadingHTTPServer(("localhost", 0), Breaking)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    server.server_close()


STREAM = """
import json
from bascule.errors import BasculeError
from bascule.weights.source import Piece
from bascule.weights.source_browser import PageSource

class Heap:
    page_bridge = None
    def __init__(self):
        self.data = bytearray(3000)
    def write(self, target, offset, chunk):
        self.data[offset : offset + len(chunk)] = bytes(chunk)

found = {}
for kind in KINDS:
    heap, reports = Heap(), []
    pieces = [Piece(500, 1000, 1, 0), Piece(1600, 2000, 1, 1000)]
    try:
        await PageSource(f"{URL}/{kind}").stream("model.safetensors", pieces, heap, reports.append)
        found[kind] = ["none", "", reports[-1], list(heap.data)]
    except BasculeError as error:
        found[kind] = [type(error).__name__, str(error), 0, []]
json.dumps(found)
"""


def test_bodies_that_break_off(
    engine: Engine, site: Site, new_page: Callable[[str], Page], breaking: str
) -> None:
    page = new_page(f"{site.url}/lab/")
    wait_for(page, "globalThis.lab")
    kinds = ["sound", "whole", "short", "dropped", "missing", "broken"]
    code = f"KINDS, URL = {kinds!r}, {breaking!r}\n{STREAM}"
    found = json.loads(page.run("(code) => lab.run(code)", code))
    for kind in ("sound", "whole"):
        error, _, done, data = found[kind]
        assert error == "none", found[kind][1]
        assert done == 3000
        assert bytes(data) == BODY[500:1500] + BODY[1600:3600]
    assert found["short"][0] == "SourceError"
    assert "2100 bytes missing" in found["short"][1]  # 500 to 3600 asked, 1,000 came
    assert found["dropped"][0] == "SourceError"
    assert found["missing"][0] == "FileMissingError"
    assert found["broken"][0] == "SourceError"
    assert "500" in found["broken"][1]


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
