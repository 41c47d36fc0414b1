"""Tokenization in a page, by @huggingface/tokenizers through web/bridge/text.js."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import js
from pyodide.ffi import JsException

from bascule.base.bridge_browser import bridge_modules, js_message
from bascule.errors import ModelFileError
from bascule.text import OpenedTokenizer, no_decoder
from bascule.text.pairs import kept_templates
from bascule.text.tokenizer_check import CheckedTokenizer

# The same as in web/early.js.
_EARLY = "basculeEarlyTokenizer"
# More tokens than a text can have.
_NO_END = 2**31 - 1


def take_early(key: str) -> OpenedTokenizer | None:
    """Take the tokenizer that web/early.js has made of a file with that key, once."""
    early = getattr(js.globalThis, _EARLY, None)
    setattr(js.globalThis, _EARLY, None)  # one that comes later is not needed
    if not early or str(early.key) != key:
        return None
    n_tokens = int(early.nTokens)
    try:
        templates = kept_templates(json.loads(str(early.templates)), n_tokens)
    except ValueError:
        return None  # a damaged entry: the file is checked again
    result = OpenedTokenizer(PageTokenizer(early.tokenizer), n_tokens, int(early.nAdded), templates)
    early.tokenizer, early.taken = None, True  # its statistics do not keep it alive
    return result


async def remember_checked(
    folder: str, key: str, checked: CheckedTokenizer, max_tokens: int | None
) -> None:
    """Start to remember a folder's checked tokenizer.json for `take_early` of the next visit."""
    names = ("bridge/text.js", "bridge/remembered.js", "vendor/idb.js")
    text, remembered, idb = await bridge_modules(names)
    record = {
        "key": key,
        "nTokens": checked.n_tokens,
        "nAdded": checked.n_added_to_text,
        "maxTokens": _js_limit(max_tokens),
        "templates": checked.templates and checked.templates.as_json(),
        "json": checked.json.decode(),
    }
    # Not awaited: the load continues, and the promise never rejects.
    text.keepChecked(remembered, idb, folder, json.dumps(record, ensure_ascii=False))


def _js_limit(max_tokens: int | None) -> int:
    return _NO_END if max_tokens is None else max_tokens


class PageTokenizer:
    """See `Tokenizer`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @classmethod
    async def from_json(cls, data: bytes, max_tokens: int | None) -> PageTokenizer:
        """Read tokenizer.json."""
        text, library = await bridge_modules(("bridge/text.js", "vendor/tokenizers.js"))
        try:
            return cls(text.createTokenizer(library, data.decode(), _js_limit(max_tokens)))
        except (JsException, UnicodeDecodeError) as error:
            problem = js_message(error) if isinstance(error, JsException) else "it is not UTF-8"
            raise ModelFileError("tokenizer.json", f"it is not sound ({problem})") from None

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[list[int]]:
        """See `Tokenizer.encode`. One call into JavaScript for all texts."""
        method = self._tokenizer.encode if special else self._tokenizer.encodeBare
        flat = self._called(method, texts)
        count, at = flat[0], 1 + flat[0]
        ids: list[list[int]] = []
        for length in flat[1 : 1 + count]:
            ids.append(flat[at : at + length])
            at += length
        return ids

    def count(self, texts: Sequence[str]) -> list[int]:
        return self._called(self._tokenizer.count, texts)

    def decode(self, ids: Sequence[int], *, skip_special: bool) -> str:
        if not self._tokenizer.decodes:
            raise no_decoder()
        try:
            return str(self._tokenizer.decode(json.dumps(list(ids)), skip_special))
        except JsException as error:
            problem = f"it fails on token ids ({js_message(error)[:200]})"
            raise ModelFileError("tokenizer.json", problem) from None

    def _called(self, method: Any, texts: Sequence[str]) -> list[int]:
        try:
            return method(json.dumps(list(texts))).to_py().tolist()
        except JsException as error:
            problem = f"it fails on a text ({js_message(error)[:200]})"
            raise ModelFileError("tokenizer.json", problem) from None
