"""Pipelines of texts, with Hugging Face's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from operator import mul
from typing import Any, TypeAlias

from bascule.base import arguments
from bascule.base.arguments import described, strings, whole_number
from bascule.errors import InputError
from bascule.tasks.classifications import Classification
from bascule.tasks.classifier import ClassifierModel
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.text_to_text import TextToTextModel

Options: TypeAlias = dict[str, Any]


def fields_of(where: str, inputs: object, names: Sequence[str]) -> list[Any]:
    """Return the values of a dict with exactly these keys; InputError otherwise."""
    if isinstance(inputs, Mapping) and set(inputs) == set(names):  # pyright: ignore[reportUnknownArgumentType]
        return [inputs[name] for name in names]
    keys = ", ".join(f'"{name}": ...' for name in names)
    raise InputError(where, f"{{{keys}}}", described(inputs))


def flag(name: str, options: Options, default: bool = False) -> bool:
    """Take a bool option out of the others."""
    return arguments.flag(name, options.pop(name, default))


async def feature_extraction(model: EmbeddingModel, inputs: Any, options: Options) -> list[Any]:
    """Return the embedding of a text (C), or of each of several (n, C), as lists of floats."""
    result = (await model.embed_rows(inputs, **options)).rows
    c = model.dimension
    rows = [result[at : at + c].tolist() for at in range(0, len(result), c)]
    return rows[0] if isinstance(inputs, str) else rows


async def sentence_similarity(model: EmbeddingModel, inputs: Any, options: Options) -> list[float]:
    """Return the cosine of each of `sentences` to `source_sentence`."""
    names = ("source_sentence", "sentences")
    source, others = fields_of("sentence-similarity", inputs, names)
    texts = [*_one("source_sentence", source), *strings("sentences", others)]
    first, *rows = await feature_extraction(model, texts, options)
    return [_cosine(first, row) for row in rows]


async def text_generation(model: LanguageModel, inputs: Any, options: Options) -> list[Any]:
    """Continue a text, or answer a chat: [{"generated_text": ...}]; a list of these for several."""
    full = flag("return_full_text", options, True)
    if isinstance(inputs, str) or _is_chat(inputs):
        return [await _generated(model, inputs, full, options)]
    if not isinstance(inputs, list | tuple):
        expected = "a text, a chat (a list of messages), or a list of those"
        raise InputError("text-generation", expected, described(inputs))
    for at, each in enumerate(inputs):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if not (isinstance(each, str) or _is_chat(each)):
            where = f"text-generation, inputs[{at}]"
            raise InputError(where, "a text, or a list of messages", described(each))  # pyright: ignore[reportUnknownArgumentType]
    return [[await _generated(model, each, full, options)] for each in inputs]  # pyright: ignore[reportUnknownVariableType]


async def _generated(model: LanguageModel, prompt: Any, full: bool, options: Options) -> Options:
    if isinstance(prompt, str):
        answer = (await model.generate(prompt, **options)).text
        return {"generated_text": prompt + answer if full else answer}
    answer = (await model.chat(prompt, **options)).text
    if not full:
        return {"generated_text": answer}
    return {"generated_text": [*prompt, {"role": "assistant", "content": answer}]}


def _is_chat(inputs: object) -> bool:
    return isinstance(inputs, list | tuple) and bool(inputs) and isinstance(inputs[0], Mapping)


async def text_to_text(model: TextToTextModel, inputs: Any, options: Options) -> list[Any]:
    """Answer each text: [{"generated_text": ...}, ...], also for one."""
    answers = await model.generate(strings("text2text-generation", inputs), **options)
    return [{"generated_text": answer.text} for answer in answers]


async def text_classification(model: ClassifierModel, inputs: Any, options: Options) -> Any:
    """Return {"label", "score"} of each text or pair; with `top_k` a list of them for each."""
    listed = "top_k" in options
    top_k = options.pop("top_k", 1)
    count = len(model.labels) if top_k is None else whole_number("top_k", top_k, 1)
    single = isinstance(inputs, str | Mapping)
    texts: Any = [inputs] if single else inputs
    if not isinstance(texts, str | Mapping) and hasattr(texts, "__iter__"):
        texts = [_pair(each) for each in texts]
    results = [_labels(each, count) for each in await model.classify(texts, **options)]
    if listed:
        return results[0] if single else results
    best = [labels[0] for labels in results]
    return best[0] if isinstance(inputs, Mapping) else best


def _pair(value: Any) -> Any:
    if isinstance(value, Mapping):
        return tuple(fields_of("text-classification", value, ("text", "text_pair")))
    return value


def _labels(classification: Classification, count: int) -> list[Options]:
    best = sorted(classification.probabilities.items(), key=lambda pair: -pair[1])[:count]
    return [{"label": label, "score": score} for label, score in best]


async def reranking(model: ClassifierModel, inputs: Any, options: Options) -> list[Options]:
    """Return {"index", "score"} of each of `texts` by how well it answers `query`, best first."""
    query, value = fields_of("reranking", inputs, ("query", "texts"))
    texts = strings("texts", value)
    top_k, with_text = options.pop("top_k", None), flag("return_text", options)
    count = len(texts) if top_k is None else whole_number("top_k", top_k, 1)
    best = (await model.rank(query, texts, **options)).best(count)
    rows: list[Options] = [{"index": each.index, "score": each.score} for each in best]
    if with_text:
        rows = [{**row, "text": texts[row["index"]]} for row in rows]
    return rows


def _one(where: str, value: object) -> list[str]:
    if not isinstance(value, str):
        raise InputError(where, "a string", described(value))
    return [value]


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the cosine of two vectors; 0 if one is zero."""
    lengths = sqrt(sum(map(mul, a, a)) * sum(map(mul, b, b)))
    return sum(map(mul, a, b)) / lengths if lengths else 0.0
