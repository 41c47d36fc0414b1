"""A loaded sequence classifier: texts or pairs of texts in, labels or scores out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import TypeAlias

from bascule.base.arguments import described, flag, listed
from bascule.base.dtypes import DType
from bascule.errors import InputError
from bascule.models.encoder.classes import Classes
from bascule.models.encoder.graph import Encoding
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program
from bascule.tasks.batched import (
    SLICE,
    BatchedModel,
    Encoded,
    check_uncut,
    checked_texts,
    in_slices,
)
from bascule.tasks.buckets import Bucket, all_buckets
from bascule.tasks.classifications import Classification, Ranking, probabilities
from bascule.tasks.loaded import Placement
from bascule.tasks.sentence_graph import Encoder
from bascule.text import Tokenizer, check_unicode
from bascule.text.encoder import EncoderTokenizer
from bascule.text.pairs import Row, Templates, joined

_Text: TypeAlias = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class ClassifierSettings:
    """The settings of a model folder, and the storage dtype of the weights."""

    encoder: Encoder
    classes: Classes
    max_tokens: int
    weights: DType = "f32"

    def program(self, bucket: Bucket) -> Program:
        """Record the pass of one bucket: ids, lengths and perhaps types -> logits (B, N)."""
        family, config = self.encoder.family, self.encoder.config
        assert family.head is not None  # a family without one has no classifiers
        batch, tokens = Dim("B", bucket.batch), Dim("T", bucket.tokens)
        graph = Graph(f"{family.name} classifier")
        ids = graph.input("ids", (batch, tokens), "u32")
        lengths = graph.input("lengths", (batch,), "u32")
        types = graph.input("types", (batch, tokens), "u32") if config.pair_types else None
        to = Encoding(graph, config, ids, lengths, self.weights, types)
        features = family.phases["encode"](to)
        graph.output(family.head.record(to, features, len(self.classes.labels)))
        return freeze(graph)

    def programs(self) -> list[Program]:
        """Record the passes of all buckets."""
        return [self.program(bucket) for bucket in all_buckets(self.max_tokens)]


class ClassifierModel(BatchedModel):
    """A sequence classifier or cross-encoder, made by `bascule.load`.

    `labels` are in the order of the logits. Close it, or use it in `async with`, to free the
    device's memory.
    """

    _what = "the logits"
    _verb = "classify"

    def __init__(
        self,
        placement: Placement,
        settings: ClassifierSettings,
        tokenizer: Tokenizer,
        templates: Templates,
    ) -> None:
        self._settings = settings
        self.labels = settings.classes.labels
        super().__init__(placement, settings, len(self.labels))
        self._tokenizer = tokenizer
        self.tokenizer = EncoderTokenizer(tokenizer, settings.encoder.config.vocabulary)
        self._templates = templates

    def __repr__(self) -> str:
        n = len(self.labels)
        return f"{super().__repr__()[:-1]}, {n} label{'s' * (n != 1)}>"

    async def rank(
        self,
        query: str,
        texts: str | Iterable[str],
        *,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Ranking:
        """Score how well each text answers a query, with a cross-encoder's single logit per pair.

        Scores go through the model's own activation, by default a sigmoid, as in
        sentence-transformers' CrossEncoder; `Ranking.best` sorts them. Options as `classify`.
        InputError for a model with several labels.
        """
        self._check_open("rank")
        if len(self.labels) != 1:
            result = f"{len(self.labels):,} ({', '.join(self.labels)[:80]})"
            hint = "classify([(query, text), ...]) gives the probabilities of its labels."
            raise InputError("rank", "a model of one label", result, hint=hint)
        if not isinstance(query, str):
            raise InputError("rank, query", "a string", described(query))
        check_unicode(query, "rank, query")
        pairs: list[_Text] = [(query, text) for text in checked_texts("rank", texts)]
        logits, rows = await self._logits("rank", pairs, batch_size, truncate, progress)
        squash = self._settings.classes.score
        scores = [probabilities([logit], squash)[0] for logit in logits]
        return Ranking(tuple(scores), tuple(len(row.ids) for row in rows), _cut(rows))

    async def classify(
        self,
        texts: str | Iterable[str | tuple[str, str]],
        *,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Classification]:
        """Classify texts, or pairs of texts, in the given order.

        Probabilities are those of transformers' pipeline: a softmax, or sigmoids if the model has
        one label or assigns several at once. Texts are cut at `max_tokens` tokens, in a pair the
        longer one first; unless `truncate`, a longer one is an InputError. At most `batch_size`
        texts (default and maximum 32) run in one pass. `progress(done, total)` counts texts.
        InputError for anything but strings and pairs of them, and for a regression, whose numbers
        `logits` returns; NotFiniteError for logits that are not finite; other errors as
        `EmbeddingModel.embed`.
        """
        self._check_open("classify")
        squash = self._settings.classes.probability
        if squash == "none":
            hint = "logits(texts) gives its numbers, rank(query, texts) those of pairs."
            raise InputError("classify", "a model of classes", "a regression", hint=hint)
        checked = _checked("classify", texts)
        logits, rows = await self._logits("classify", checked, batch_size, truncate, progress)
        n, cut = len(self.labels), set(_cut(rows))
        results: list[Classification] = []
        for at, row in enumerate(rows):
            shares = probabilities(logits[at * n : (at + 1) * n], squash)
            best = max(range(n), key=shares.__getitem__)
            named = dict(zip(self.labels, shares, strict=True))
            length = len(row.ids)
            results.append(
                Classification(self.labels[best], shares[best], named, length, at in cut)
            )
        return results

    async def logits(
        self,
        texts: str | Iterable[str | tuple[str, str]],
        *,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[tuple[float, ...]]:
        """Compute the head's numbers of each text or pair, one per label.

        Options and errors as `classify`.
        """
        self._check_open("logits")
        checked = _checked("logits", texts)
        flat, _ = await self._logits("logits", checked, batch_size, truncate, progress)
        n = len(self.labels)
        return [tuple(flat[at : at + n]) for at in range(0, len(flat), n)]

    async def _logits(
        self,
        verb: str,
        texts: Sequence[_Text],
        batch_size: int | None,
        truncate: bool,
        progress: Callable[[int, int], None] | None,
    ) -> tuple[memoryview[float], list[Row]]:
        """Return the logits of all texts (n * N,), and their token rows."""
        flag("truncate", truncate)
        started = perf_counter()
        rows = await self._encoded(verb, texts)
        full = {at: row.n_uncut for at, row in enumerate(rows) if row.n_uncut > len(row.ids)}
        if not truncate:
            check_uncut(verb, full, self.max_tokens)
        encoded = self._typed([row.ids for row in rows], [row.types for row in rows])
        logits = await self._rows(encoded, batch_size=batch_size, progress=progress)
        self._count(encoded.lengths, perf_counter() - started)
        return logits, rows

    def _typed(self, ids: list[list[int]], types: list[list[int]]) -> Encoded:
        if not self._settings.encoder.config.pair_types:
            return Encoded(ids)
        return Encoded(ids, per_token={"types": types})

    def _of_ids(self, ids: Sequence[int]) -> Encoded:
        return self._typed([list(ids)], [[0] * len(ids)])

    async def _encoded(self, verb: str, texts: Sequence[_Text]) -> list[Row]:
        """Return token rows; each text is tokenized once, and other tasks run between slices."""
        single, pair = self._templates.single, self._templates.pair
        if pair is None and any(second is not None for _, second in texts):
            expected = "a model whose tokenizer.json says how two texts go together"
            raise InputError(verb, expected, self.name)
        each = list(dict.fromkeys(text for both in texts for text in both if text is not None))
        bare = await in_slices(partial(self._tokenizer.encode, special=False), each)
        tokens: dict[str | None, list[int]] = {None: [], **dict(zip(each, bare, strict=True))}
        rows: list[Row] = []
        for at, (first, second) in enumerate(texts):
            if at and at % SLICE == 0:
                await asyncio.sleep(0)
            template = single if second is None else pair or single
            rows.append(joined(template, tokens[first], tokens[second], self.max_tokens))
        return rows

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: bytes, milliseconds, passes, texts and tokens."""
        return {**self._batch_stats, "classify_ms": 1e3 * self._counts.busy_s}


def _cut(rows: Sequence[Row]) -> tuple[int, ...]:
    return tuple(at for at, row in enumerate(rows) if row.n_uncut > len(row.ids))


def _checked(verb: str, texts: object) -> list[_Text]:
    """Return texts and pairs of texts; InputError for anything else."""
    expected = "a string, or a list of strings and pairs of strings"
    results: list[_Text] = []
    for at, each in enumerate(listed(f"{verb}, texts", texts, expected)):
        match each:
            case str():
                results.append((str(each), None))
            case (str() as first, str() as second):
                results.append((str(first), str(second)))
            case _:
                what = "a string, or a pair of strings"
                raise InputError(f"{verb}, texts[{at}]", what, described(each))
        for text in results[-1]:
            check_unicode(text or "", f"{verb}, text {at}")
    return results
