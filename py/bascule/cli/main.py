"""The command line: what `bascule COMMAND` does.

Answers go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 an error,
2 a wrong command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bascule import __version__
from bascule.choosing.switches import warn_of_unknown_names
from bascule.cli.classes import add_classify_arguments, add_rank_arguments, classify, rank
from bascule.cli.compat import add_compat_arguments, compat
from bascule.cli.models import add_model_arguments, add_quantize_argument, opened_model
from bascule.cli.page import (
    add_pyodide_arguments,
    add_snapshot_arguments,
    add_wheel_arguments,
    pyodide,
    snapshot,
    wheel,
)
from bascule.cli.speech import (
    add_convert_arguments,
    add_transcribe_arguments,
    convert,
    transcribe,
)
from bascule.cli.streams import ReaderGoneError, standard_streams, texts_or_lines
from bascule.cli.text import add_chat_arguments, add_generate_arguments, chat, generate
from bascule.errors import BasculeError, InputError

DEFAULT_MODEL = "all-MiniLM-L6-v2"
DEFAULT_PORT = 8600

Command = Callable[[argparse.Namespace], Coroutine[Any, Any, None]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    with standard_streams() as output:
        try:
            try:
                parsed = _parser().parse_args(arguments)
                command: Command = parsed.command
                warn_of_unknown_names()
                asyncio.run(command(parsed))
            finally:
                output.flush()
        except BasculeError as error:
            print(f"bascule: {error.what}", file=sys.stderr)
            if error.hint:
                print(f"         {error.hint}", file=sys.stderr)
            output.discard()
            return 1
        except KeyboardInterrupt:
            print("bascule: interrupted", file=sys.stderr)
            return 130
        except ReaderGoneError:
            output.discard()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bascule", description="Run models on the GPU, here and in a web page."
    )
    parser.add_argument("--version", action="version", version=f"bascule {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    pull = _command(commands, _pull, "bascule pull all-MiniLM-L6-v2")
    pull.add_argument("model", metavar="MODEL", help="a known name, or OWNER/NAME of the hub")
    pull.add_argument("--force", action="store_true", help="fetch it even if it is there")
    pull.add_argument(
        "--from", dest="folder", type=Path, metavar="FOLDER", help="copy a known model's files"
    )

    embed = _command(commands, _embed, 'bascule embed --json "a text" "another"')
    embed.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
    add_model_arguments(embed, "name, folder or URL", DEFAULT_MODEL)
    add_quantize_argument(embed)
    embed.add_argument("--json", action="store_true", help="print a JSON list of lists of numbers")

    passages = 'bascule rank "How tall is it?" --model ./ms-marco-MiniLM-L6-v2 < passages.txt'
    add_rank_arguments(_command(commands, rank, passages))
    film = 'bascule classify "A fine film." --model ./sentiment'
    add_classify_arguments(_command(commands, classify, film))
    bridge = 'bascule generate "What is a bascule bridge?"'
    add_generate_arguments(_command(commands, generate, bridge))
    add_chat_arguments(_command(commands, chat, "bascule chat"))
    talk = "bascule transcribe talk.wav --format srt > talk.srt"
    add_transcribe_arguments(_command(commands, transcribe, talk))
    converted = "bascule convert models/small-ct2 models/small"
    add_convert_arguments(_command(commands, convert, converted))

    tune = _command(commands, _tune, "bascule tune all-MiniLM-L6-v2 --budget 60")
    tune.add_argument(
        "model", nargs="?", default=DEFAULT_MODEL, metavar="MODEL", help="(%(default)s)"
    )
    tune.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="(%(default)s)")
    tune.add_argument("--json", action="store_true", help="print the report as JSON")

    manifest = _command(commands, _manifest, "bascule manifest models/my-model")
    manifest.add_argument("folder", type=Path, metavar="FOLDER", help="the model's folder")
    manifest.add_argument(
        "--chunk-mb", type=float, default=4.0, metavar="MIB", help="size of a chunk (%(default)s)"
    )

    cache = _command(commands, _cache, "bascule cache ls")
    cache.add_argument("action", choices=["ls", "rm", "verify"])
    cache.add_argument("locations", nargs="*", metavar="LOCATION", help="what rm removes")
    cache.add_argument("--all", action="store_true", help="rm: remove everything")
    cache.add_argument("--json", action="store_true", help="print JSON")

    serve = _command(commands, _serve, "bascule serve --port 8600")
    serve.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (%(default)s)"
    )
    serve.add_argument("--models", type=Path, help="folder of models (the cache folder's)")
    serve.add_argument(
        "--no-isolation", action="store_true", help="leave out the cross-origin isolation headers"
    )
    serve.add_argument("--cors", metavar="ORIGIN", help="whose pages may read all of it, or '*'")

    add_wheel_arguments(_command(commands, wheel, "bascule wheel dist"))
    add_snapshot_arguments(_command(commands, snapshot, "bascule snapshot site/wheel"))
    add_pyodide_arguments(_command(commands, pyodide, "bascule pyodide"))
    report = "bascule compat --collect-all --matrix --format html --output compat.html"
    add_compat_arguments(_command(commands, compat, report))
    doctor = _command(commands, _doctor, "bascule doctor --json")
    doctor.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _command(commands: Any, run: Command, example: str) -> argparse.ArgumentParser:
    """Add the command of that name, which its docstring's first line describes."""
    summary = (run.__doc__ or "").partition("\n")[0]
    parser: argparse.ArgumentParser = commands.add_parser(
        run.__name__.lstrip("_"),
        help=summary[:1].lower() + summary[1:].rstrip("."),
        description=summary,
        epilog=f"Example: {example}",
    )
    parser.set_defaults(command=run)
    return parser


async def _pull(parsed: argparse.Namespace) -> None:
    """Fetch a model into the cache folder."""
    from bascule.cli.terminal import progress_bar
    from bascule.tasks.hub import pull, pull_from

    with progress_bar() as notify:
        if parsed.folder is not None:
            folder = await pull_from(parsed.model, parsed.folder, progress=notify)
        else:
            folder = await pull(parsed.model, force=parsed.force, progress=notify)
    print(folder)


async def _embed(parsed: argparse.Namespace) -> None:
    """Embed texts."""
    from bascule.cli.terminal import similarity_table
    from bascule.tasks.embedder import EmbeddingModel

    texts = texts_or_lines("embed", parsed.texts)
    hint = (
        f"`bascule generate --model {parsed.model}` is for language models, "
        "`bascule rank` and `bascule classify` for sequence classifiers."
    )
    async with opened_model(parsed, EmbeddingModel, "it embeds no texts", hint) as model:
        embeddings = await model.embed(texts)
        if parsed.json:
            print(json.dumps(embeddings.astype(float).tolist()))
        else:
            similarity_table(texts, embeddings, f"{model.tier} on {model.device_name}")


async def _tune(parsed: argparse.Namespace) -> None:
    """Measure which shaders run a model fastest here, and remember it."""
    from bascule.cli.terminal import progress_bar, tuning_table
    from bascule.device.loading import load

    if not 0 < parsed.budget < 1e6:
        raise InputError("tune --budget", "seconds above 0", str(parsed.budget))
    with progress_bar() as notify:
        async with await load(parsed.model, tier="webgpu", progress=notify) as model:
            report = await model.tune(parsed.budget, progress=notify)
    if parsed.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        tuning_table(report, model.device_name)


async def _manifest(parsed: argparse.Namespace) -> None:
    """Write the SHA-256 of every chunk of a model folder's files beside them."""
    from bascule.cli.terminal import progress_bar
    from bascule.weights.manifest import write_manifest

    with progress_bar() as notify:
        path = await write_manifest(parsed.folder, parsed.chunk_mb, notify)
    print(path)


async def _cache(parsed: argparse.Namespace) -> None:
    """List, remove or verify what is kept of models."""
    from bascule import cache
    from bascule.cli.terminal import cache_table

    if parsed.action != "rm" and (parsed.locations or parsed.all):
        raise InputError(f"cache {parsed.action}", "no locations", "some")
    if parsed.action == "rm":
        gone = await cache.rm(parsed.locations, everything=parsed.all)
        print(json.dumps(gone) if parsed.json else f"{gone} removed")
        return
    if parsed.action == "verify":
        damaged = await cache.verify()
        if parsed.json:
            print(json.dumps(damaged, indent=2))
        elif not damaged:
            print("No file in the cache is damaged.")
        for location, count in {} if parsed.json else damaged.items():
            done = "removed" if location == cache.ORPHANED else "damaged, fetched again when needed"
            print(f"{location}: {count} {done}")
        return
    models = await cache.ls()
    if parsed.json:
        print(json.dumps([asdict(each) for each in models], indent=2))
    else:
        cache_table(models)


async def _serve(parsed: argparse.Namespace) -> None:
    """Serve the page on this machine."""
    from bascule.server.guard import check_origin
    from bascule.server.pyodide import pyodide_folder
    from bascule.server.run import listen, serve

    if not 0 <= parsed.port <= 65535:
        raise InputError("serve --port", "0 to 65535", str(parsed.port))
    cors = None if parsed.cors is None else check_origin(parsed.cors)
    pyodide_folder()  # before a port is taken and an address is printed
    sock = listen(parsed.port)
    url = f"http://localhost:{sock.getsockname()[1]}/"
    print(f"Bascule is at {url} (Ctrl+C stops it)", file=sys.stderr, flush=True)
    await serve(sock, models=parsed.models, isolated=not parsed.no_isolation, cors=cors)


async def _doctor(parsed: argparse.Namespace) -> None:
    """Say what works on this machine."""
    from bascule.cli.terminal import doctor_table
    from bascule.observe.report import examine

    report = await examine()
    if parsed.json:
        print(json.dumps(report, indent=2))
    else:
        doctor_table(report)
