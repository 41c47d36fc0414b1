"""`bascule generate` and `bascule chat` as their user meets them."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.running import run
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny, tiny_folder

TINY = tiny("tiny-q4_1")
MODEL = ("--model", str(TINY.path))


def message(index: int, role: str) -> str:
    results = [m["content"] for m in TINY.chats[index].messages if m["role"] == role]
    return results[0] if results else ""


@pytest.mark.parametrize("tier", ["webgpu", "cpu"])
def test_generate_prints_json_and_nothing_else(tier: str) -> None:
    chat = next(c for c in TINY.chats if len(c.messages) == 1)
    output = run(
        "generate", *MODEL, "--tier", tier, "--greedy", "--max-new", "32", "--json",
        chat.messages[0]["content"],
    )  # fmt: skip
    assert output.returncode == 0, output.stderr
    assert output.stderr == ""
    result = json.loads(output.stdout)
    assert set(result) == {"text", "ids", "prompt_ids", "stats"}
    assert result["prompt_ids"] == chat.prompt_ids
    assert chat.parts_at(result["ids"]) is None
    assert result["stats"]["tier"] == tier
    assert result["stats"]["new_tokens"] >= len(result["ids"])


def test_generate_streams_text_and_reads_a_prompt_from_stdin() -> None:
    arguments = ("generate", *MODEL, "--tier", "cpu", "--greedy", "--max-new", "9", "--raw")
    result = run(*arguments, "-", stdin="Once upon a time")
    assert result.returncode == 0, result.stderr
    asked = json.loads(run(*arguments, "--json", "Once upon a time").stdout)
    assert result.stdout == asked["text"] + "\n"


def test_a_folder_generates_as_it_is_and_in_fewer_bits() -> None:
    golden = tiny_folder()
    chat = golden.chats[0]
    arguments = ("--model", str(golden.path), "--tier", "cpu", "--greedy", "--max-new", "32")
    results: list[list[int]] = []
    for quantize in ((), ("--quantize", "8"), ("--quantize", "q4_0")):
        prompt = chat.messages[0]["content"]
        result = run("generate", *arguments, *quantize, "--json", prompt)
        assert result.returncode == 0, result.stderr
        answer = json.loads(result.stdout)
        assert answer["prompt_ids"] == chat.prompt_ids
        results.append(answer["ids"])
    assert chat.parts_at(results[0]) is None
    assert results[0] != results[2]  # 4 bits of random weights say something else


def test_embeddings_in_fewer_bits() -> None:
    arguments = ("embed", "--model", "all-MiniLM-L6-v2", "--tier", "cpu", "--json", "a text")
    messages = [run(*arguments, *more) for more in ((), ("--quantize", "q8_0"))]
    assert [each.returncode for each in messages] == [0, 0], messages
    (plain,), (blocks,) = (json.loads(each.stdout) for each in messages)
    assert plain != blocks
    assert sum(a * b for a, b in zip(plain, blocks, strict=True)) > 0.999


def test_a_system_message_replaces_the_template_s_own() -> None:
    ids = {
        system: json.loads(
            run(
                "generate", *MODEL, "--tier", "cpu", "--max-new", "1", "--json",
                *(("--system", system) if system else ()), "Hi",
            ).stdout
        )["prompt_ids"]
        for system in ("", "Be brief.")
    }  # fmt: skip
    assert ids[""] != ids["Be brief."]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", *MODEL, "--raw", ""], "at least one token"),
        (["generate", *MODEL, "--raw", "--system", "x", "y"], "--raw or --system"),
        (["generate", *MODEL, "--greedy", "--top-k", "3", "x"], "--top-k"),
        (["generate", *MODEL, "--temperature", "-1", "x"], "temperature"),
        (["generate", *MODEL, "--max-new", "0", "x"], "max_new_tokens"),
        (["generate", *MODEL, "--stop", "", "x"], "stop"),
        (["generate", *MODEL, "w " * 400], "do not fit a context of 256"),
        (["generate", "--model", str(TINY_BERT), "x"], "bascule embed"),
        (["generate", "--model", "SmolLM3", "x"], "SmolLM2-135M-Instruct"),
        (["generate", *MODEL, "--quantize", "8", "x"], "whose weights are loaded in the blocks"),
        (["embed", "--model", str(TINY_BERT), "--quantize", "5", "x"], "4, 8 or one of q4_0"),
        (["embed", "--model", str(TINY.path), "x"], "bascule generate"),
    ],
    ids=str,
)
def test_mistakes_are_told_with_what_to_try(arguments: list[str], words: str) -> None:
    tier = [] if "--tier" in arguments else ["--tier", "cpu"]
    result = run(*arguments, *tier)
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_chat_answers_each_line_and_remembers() -> None:
    result = run(
        "chat", *MODEL, "--tier", "cpu", "--greedy", "--max-new", "8", stdin="Hi\n\nAgain\n"
    )
    assert result.returncode == 0, result.stderr
    assert "Ctrl+D" in result.stderr
    assert result.stdout.count("\n") >= 2


def test_ctrl_c_stops_an_answer_and_the_chat_goes_on() -> None:
    endless = str(tiny("tiny-k").path)  # it never comes to its end token
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "bascule", "chat", "--model", endless, "--tier", "cpu", "--greedy",
         "--max-new", "100000", "--slide"],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        _until(ours, b"> ")
        os.write(ours, b"Hi\n")
        _until(ours, b"Hi\r\n")
        os.read(ours, 1)  # the answer has begun
        os.kill(process.pid, signal.SIGINT)
        _until(ours, b"> ")
        assert process.poll() is None
        os.write(ours, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(ours)


def _until(terminal: int, wanted: bytes) -> bytes:
    seen, deadline = b"", time.monotonic() + 60
    while wanted not in seen:
        assert time.monotonic() < deadline, seen[-300:]
        seen += os.read(terminal, 4096)
    return seen
