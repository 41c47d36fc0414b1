"""JSON that is not trusted: bounded before it is parsed, in memory and in time."""

from __future__ import annotations

import json
import subprocess
import tracemalloc
from pathlib import Path

import pytest

from bascule.base.json_object import (
    SMALL,
    TOKENIZER,
    JsonFault,
    JsonLimits,
    json_object,
    parse_json,
)
from bascule.errors import ModelFileError

ROOT = Path(__file__).resolve().parent.parent
FEW = JsonLimits(1000, 8, 3)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1", 1),
        ("[]", 2),  # counted as if something were in it
        ("[1, 2]", 3),
        ('{"a": 1, "b": [true, null]}', 7),
        (r'["[,,,{:", "\",,,,\\", "\\"]', 4),
        ('[["a","b"],["c","d"]]', 7),
    ],
)
def test_items_are_counted_outside_of_strings(text: str, items: int) -> None:
    result = parse_json(text.encode(), JsonLimits(1000, items, 3))
    assert result == json.loads(text)
    if items > 1:
        with pytest.raises(JsonFault, match="items"):
            parse_json(text.encode(), JsonLimits(1000, items - 1, 3))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b" " * 1001, "1,001 bytes"),
        (b"[[[[]]]]", "nested more than 3 deep"),
        (b"[" * 1000, "items"),
        (b"[" + b"9" * 301 + b"]", "300 digits"),
        (b"", "not JSON"),
        (b"[1", "not JSON"),
        (b'"a', "not JSON"),
        (b'["\\"', "not JSON"),
        (b'"\xff"', "not JSON"),
        (b'"\xed\xa0\x80"', "not JSON"),
        ("[1]".encode("utf-16"), "not JSON"),
        (rb'"\ud83d"', "a lone surrogate"),
        (rb'"\uDE00\ud83d"', "a lone surrogate"),
        (rb'"\\\ud83d"', "a lone surrogate"),
        (rb'"\ud83d\ud83d\ude00"', "a lone surrogate"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_what_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(JsonFault, match=problem):
        parse_json(data, FEW)
    with pytest.raises(ModelFileError, match=rf"x\.json: .*{problem}"):
        json_object(data, "x.json", FEW)


@pytest.mark.parametrize(
    "text",
    [r'"\ud83d\ude00"', r'"\\ud83d"', '"' + "9" * 400 + '"', "[1e999, -0, 1.5]", '"\\n\\u00e9"'],
)
def test_what_is_read(text: str) -> None:
    assert parse_json(text.encode(), FEW) == json.loads(text)


def test_a_byte_order_mark_is_skipped() -> None:
    assert parse_json("\ufeff{}".encode(), FEW) == {}


def test_only_strict_reading_refuses_names_twice_and_constants() -> None:
    assert parse_json(b'{"a": 1, "a": NaN}')["a"] != 1
    with pytest.raises(JsonFault, match="twice"):
        parse_json(b'{"a": 1, "a": 2}', strict=True)
    with pytest.raises(JsonFault, match="Infinity"):
        parse_json(b"[-Infinity]", strict=True)


@pytest.mark.parametrize(
    ("first", "again"),
    [("[", "[],"), ("[", "{},"), ('["a"', ',""'), ("", '"'), ("", r"\""), ("", "["), ("[", "1,")],
)
@pytest.mark.parametrize("limits", [SMALL, TOKENIZER])
def test_forty_megabytes_do_not_become_a_gigabyte(
    first: str, again: str, limits: JsonLimits
) -> None:
    for nbytes in (40_000_000, limits.nbytes):
        part = (first + again * (nbytes // len(again))).encode()[:nbytes]
        tracemalloc.start()
        with pytest.raises(JsonFault):
            parse_json(part, limits)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 100 << 20


def test_a_tokenizer_of_a_quarter_million_tokens_is_read() -> None:
    tokens = {f"{index:x}é": index for index in range(250_000)}
    merges = [[f"{index:x}", "é"] for index in range(250_000)]
    result = {"model": {"vocab": tokens, "merges": merges}}
    data = json.dumps(result, ensure_ascii=False).encode()
    assert json_object(data, "tokenizer.json", TOKENIZER) == result


def test_the_page_bounds_a_manifest_too() -> None:
    script = """
      import { parseManifest } from "./web/bridge/manifest.js";
      const sound = { version: 1, chunk_nbytes: 65536, files: {} };
      const text = process.argv[1] === "sound" ? JSON.stringify(sound) : "{" + "[],".repeat(5e6);
      try { console.log(parseManifest(new TextEncoder().encode(text)).size); }
      catch (error) { console.log(error.message); }
    """
    for name, expected in (("sound", "0"), ("large", "it holds more than 262144 items")):
        command = ["node", "--input-type=module", "-e", script, name]
        result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert result.stdout.strip() == expected, result.stderr
