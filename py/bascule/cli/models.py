"""The model that a command line names: its arguments, and opening it."""

from __future__ import annotations

import argparse
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from bascule.backend.tiers import NAMES
from bascule.errors import UnsupportedModelError

if TYPE_CHECKING:
    from bascule.tasks.loaded import LoadedModel

M = TypeVar("M", bound="LoadedModel")


def add_model_arguments(
    parser: argparse.ArgumentParser, where: str, default: str | None = None
) -> None:
    """Add --model, required without a `default`, and --tier; `where` says what may be named."""
    shown = where if default is None else f"{where} (%(default)s)"
    parser.add_argument("--model", default=default, required=default is None, help=shown)
    parser.add_argument("--tier", default="auto", choices=["auto", *NAMES], help="(%(default)s)")


def add_quantize_argument(parser: argparse.ArgumentParser) -> None:
    """Add --quantize: fewer bits for float weights."""
    parser.add_argument(
        "--quantize",
        type=_bits_or_format,
        metavar="FORMAT",
        help="quantize float weights, or store them as float16: 4, 8, q4_0, q4_1, q8_0 or f16",
    )


def _bits_or_format(text: str) -> int | str:
    """What `bascule.load` takes, which checks it."""
    return int(text) if text in ("4", "8") else text


@asynccontextmanager
async def opened_model(
    parsed: argparse.Namespace, kind: type[M], problem: str, hint: str
) -> AsyncGenerator[M]:
    """Load the model of a command line with a progress bar, and close it at the end.

    UnsupportedModelError with that `problem` and `hint` for a model of another kind.
    """
    from bascule.cli.terminal import progress_bar
    from bascule.device.loading import load

    quantize: int | str | None = getattr(parsed, "quantize", None)  # some commands take none
    with progress_bar() as notify:
        model = await load(parsed.model, tier=parsed.tier, quantize=quantize, progress=notify)
    async with model:
        if not isinstance(model, kind):
            raise UnsupportedModelError(parsed.model, problem, hint=hint)
        yield model
