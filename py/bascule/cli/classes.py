"""`bascule rank` and `bascule classify`: scores and labels of texts, from a sequence classifier."""

from __future__ import annotations

import argparse
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict
from typing import TYPE_CHECKING

from bascule.cli.models import add_model_arguments, add_quantize_argument, opened_model
from bascule.cli.streams import texts_or_lines

if TYPE_CHECKING:
    from bascule.tasks.classifier import ClassifierModel


def add_rank_arguments(parser: argparse.ArgumentParser) -> None:
    """What `rank` takes."""
    parser.add_argument("query", metavar="QUERY", help="the query")
    add_classify_arguments(parser)
    parser.add_argument("--best", type=int, metavar="N", help="print only the N best")


def add_classify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `classify` takes."""
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="default: the lines of stdin")
    add_model_arguments(parser, "name, hub id, folder or URL")
    add_quantize_argument(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON list of objects")


async def rank(parsed: argparse.Namespace) -> None:
    """Rank texts by how well they answer a query."""
    from bascule.cli.terminal import ranking_table

    texts = texts_or_lines("rank", parsed.texts)
    async with _classifier(parsed) as model:
        best = (await model.rank(parsed.query, texts)).best(parsed.best)
        if parsed.json:
            print(json.dumps([{**asdict(each), "text": texts[each.index]} for each in best]))
        else:
            ranking_table(texts, best, f"{model.tier} on {model.device_name}")


async def classify(parsed: argparse.Namespace) -> None:
    """Give texts a label each."""
    from bascule.cli.terminal import classes_table

    texts = texts_or_lines("classify", parsed.texts)
    async with _classifier(parsed) as model:
        classes = await model.classify(texts)
        if parsed.json:
            rows = zip(classes, texts, strict=True)
            print(json.dumps([{**asdict(each), "text": text} for each, text in rows]))
        else:
            classes_table(texts, classes, f"{model.tier} on {model.device_name}")


def _classifier(parsed: argparse.Namespace) -> AbstractAsyncContextManager[ClassifierModel]:
    from bascule.tasks.classifier import ClassifierModel

    hint = (
        f"`bascule embed --model {parsed.model}` is for sentence encoders, "
        f"`bascule generate --model {parsed.model}` for language models."
    )
    return opened_model(parsed, ClassifierModel, "it ranks and classifies no texts", hint)
