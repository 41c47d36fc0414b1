"""`bascule generate` and `bascule chat`: text from a language model, streamed to the terminal."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from bascule.cli.models import add_model_arguments, add_quantize_argument, opened_model
from bascule.cli.streams import reading
from bascule.errors import BasculeError, InputError

if TYPE_CHECKING:
    from bascule.tasks.language import LanguageModel

DEFAULT_LANGUAGE_MODEL = "SmolLM2-135M-Instruct"


def add_generate_arguments(parser: argparse.ArgumentParser) -> None:
    """What `generate` takes."""
    parser.add_argument("prompt", metavar="PROMPT", help="one user's turn; - reads it from stdin")
    parser.add_argument("--raw", action="store_true", help="continue PROMPT itself, no template")
    parser.add_argument("--json", action="store_true", help="print text, ids and statistics")
    add_chat_arguments(parser)


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """What `chat` takes."""
    add_model_arguments(parser, "name, folder, URL or .gguf file", DEFAULT_LANGUAGE_MODEL)
    add_quantize_argument(parser)
    parser.add_argument("--system", help="system message, in place of the template's own")
    parser.add_argument("--greedy", action="store_true", help="greedy decoding")
    parser.add_argument(
        "--max-new", type=int, default=256, metavar="N", help="tokens at most (%(default)s)"
    )
    parser.add_argument("--stop", action="append", default=[], help="end before this text")
    parser.add_argument(
        "--slide", action="store_true", help="drop old tokens when the context is full"
    )
    for name, kind in (
        ("temperature", float),
        ("top-k", int),
        ("top-p", float),
        ("min-p", float),
        ("repetition-penalty", float),
        ("seed", int),
    ):
        parser.add_argument(f"--{name}", type=kind, help="see the README")


async def generate(parsed: argparse.Namespace) -> None:
    """Answer a prompt with a language model."""
    prompt: str = parsed.prompt
    if prompt == "-":
        with reading() as stdin:
            prompt = stdin.read()
    if parsed.raw and parsed.system is not None:
        raise InputError("generate", "--raw or --system", "both")
    options = _options(parsed)
    async with _model(parsed) as model:
        if parsed.raw:
            stream = model.stream(prompt, **options)
        else:
            stream = model.stream_chat(_conversation(parsed.system, prompt), **options)
        await _print_stream(stream, silent=parsed.json)
        result = stream.result
        if parsed.json:
            fields = {
                "text": result.text,
                "ids": result.ids,
                "prompt_ids": result.prompt_ids,
                "stats": {**result.stats, "tier": model.tier, "stop_reason": result.stop_reason},
            }
            print(json.dumps(fields))
        else:
            print()
            _notify(model, result)


async def chat(parsed: argparse.Namespace) -> None:
    """Talk with a language model.

    The end of the input ends it; Ctrl+C stops an answer, or leaves.
    """
    options = _options(parsed)
    messages = _conversation(parsed.system, "")[:-1]
    async with _model(parsed) as model:
        print(f"{model.name} on {model.device_name}. Ctrl+D leaves.", file=sys.stderr)
        while (line := _read_line()) is not None:
            if not line.strip():
                continue
            messages.append({"role": "user", "content": line})
            try:
                stream = model.stream_chat(messages, **options)
                await _until_interrupted(_print_stream(stream))
            except BasculeError as error:
                messages.pop()
                print(f"bascule: {error}", file=sys.stderr)
                continue
            print()
            messages.append({"role": "assistant", "content": stream.result.text})
            _notify(model, stream.result)


def _conversation(system: str | None, prompt: str) -> list[dict[str, str]]:
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def _options(parsed: argparse.Namespace) -> dict[str, Any]:
    from bascule.tasks.sampler import GREEDY, Sampling

    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed")
    chosen = {name: getattr(parsed, name) for name in names if getattr(parsed, name) is not None}
    if parsed.greedy and chosen:
        options = ", ".join("--" + name.replace("_", "-") for name in chosen)
        raise InputError("--greedy", "no sampling options beside it", options)
    return {
        "sampling": GREEDY if parsed.greedy else Sampling(**chosen),
        "max_new_tokens": parsed.max_new,
        "stop": parsed.stop,
        "overflow": "slide" if parsed.slide else "error",
    }


def _model(parsed: argparse.Namespace) -> AbstractAsyncContextManager[LanguageModel]:
    from bascule.tasks.language import LanguageModel

    hint = f"`bascule embed --model {parsed.model}` is for sentence encoders."
    return opened_model(parsed, LanguageModel, "it generates no text", hint)


async def _print_stream(stream: Any, *, silent: bool = False) -> None:
    async with stream:
        async for piece in stream:
            if not silent:
                print(piece, end="", flush=True)


async def _until_interrupted(work: Any) -> None:
    """Run `work`; Ctrl+C ends only that."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    try:
        loop.add_signal_handler(signal.SIGINT, task.cancel)
    except NotImplementedError:  # Windows has no such handlers: there Ctrl+C leaves
        await task
        return
    try:
        await asyncio.gather(task, return_exceptions=False)
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _read_line() -> str | None:
    with reading() as stdin:
        try:
            return input("> " if stdin.isatty() else "")
        except EOFError:
            return None


def _notify(model: Any, result: Any) -> None:
    """Print a line of statistics, for people only."""
    if not sys.stderr.isatty():
        return
    stats = result.stats
    prompt = f"{stats['prompt_tokens']:.0f} of prompt, {stats['reused_tokens']:.0f} reused"
    print(
        f"{stats['new_tokens']:.0f} tokens, {stats['decode_tokens_per_s']:.1f} a second; "
        f"first after {stats['first_token_ms']:.0f} ms ({prompt}); "
        f"{model.tier} on {model.device_name}",
        file=sys.stderr,
    )
