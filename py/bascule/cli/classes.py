"""`bascule rank` and `bascule classify`: scores and labels of texts, from a sequence classifier."""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from bascule.backend.base import TIERS
from bascule.cli.streams import texts_or_lines
from bascule.cli.text import add_quantize_argument
from bascule.errors import UnsupportedModelError

if TYPE_CHECKING:
    from bascule.tasks.classifier import ClassifierModel


def add_rank_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rank` takes."""
    parser.add_argument("query", metavar="QUERY", help="what the texts shall answer")
    _add_shared(parser)
    parser.add_argument("--best", type=int, metavar="N", help="print the N best alone")


def add_classify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `classify` takes."""
    _add_shared(parser)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
    parser.add_argument("--model", required=True, help="name, hub id, folder or URL")
    parser.add_argument("--tier", default="auto", choices=["auto", *TIERS], help="(%(default)s)")
    add_quantize_argument(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")


async def rank(parsed: argparse.Namespace) -> None:
    """Print how well texts answer a query, the best first."""
    from bascule.cli.terminal import ranking_table

    texts = texts_or_lines("rank", parsed.texts)
    async with _classifier(parsed) as model:
        best = (await model.rank(parsed.query, texts)).best(parsed.best)
        if parsed.json:
            print(json.dumps([{**asdict(each), "text": texts[each.index]} for each in best]))
        else:
            ranking_table(texts, best, f"{model.tier} on {model.device_name}")


async def classify(parsed: argparse.Namespace) -> None:
    """Print each text's label."""
    from bascule.cli.terminal import classes_table

    texts = texts_or_lines("classify", parsed.texts)
    async with _classifier(parsed) as model:
        classes = await model.classify(texts)
        if parsed.json:
            rows = zip(classes, texts, strict=True)
            print(json.dumps([{**asdict(each), "text": text} for each, text in rows]))
        else:
            classes_table(texts, classes, f"{model.tier} on {model.device_name}")


@asynccontextmanager
async def _classifier(parsed: argparse.Namespace) -> AsyncGenerator[ClassifierModel]:
    from bascule.cli.terminal import progress_bar
    from bascule.device.loading import load
    from bascule.tasks.classifier import ClassifierModel

    with progress_bar() as tell:
        model = await load(parsed.model, tier=parsed.tier, quantize=parsed.quantize, progress=tell)
    async with model:
        if not isinstance(model, ClassifierModel):
            hint = (
                f"`bascule embed --model {parsed.model}` is for sentence encoders, "
                f"`bascule generate --model {parsed.model}` for language models."
            )
            raise UnsupportedModelError(parsed.model, "it ranks and classifies no texts", hint=hint)
        yield model
