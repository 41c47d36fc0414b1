"""A loaded model of images and texts: both in, embeddings in one space out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from bascule.backend.tuning import TuneReport
from bascule.base.arguments import described, whole_number
from bascule.base.arrays import Array, need_numpy, np
from bascule.base.progress import ProgressCallback
from bascule.errors import InputError
from bascule.tasks.batched import BatchedModel, Encoded, checked_texts
from bascule.tasks.classifications import probabilities
from bascule.tasks.image_runs import ImageProgress, ImageRuns
from bascule.tasks.image_text_programs import ImageTextSettings
from bascule.tasks.images import ImageClassification, ranked
from bascule.tasks.loaded import Placement
from bascule.text import Tokenizer
from bascule.text.encoder import EncoderTokenizer

if TYPE_CHECKING:
    from bascule.tasks.embeddings import Embeddings

_PLACE = "{}"


class ImageTextModel(ImageRuns, BatchedModel):
    """A model of images and texts, made by `bascule.load`.

    `dimension` is the width D of its embeddings, `max_tokens` the longest text, including special
    tokens; logits are cosines times `logit_scale`, plus `logit_bias` (0 without one). Close it, or
    use it in `async with`, to free the device's memory.
    """

    _what = "the embedding"
    _verb = "embed_text"

    def __init__(
        self, placement: Placement, settings: ImageTextSettings, tokenizer: Tokenizer
    ) -> None:
        self.dimension = settings.config.dimension
        super().__init__(settings, placement, settings, self.dimension)
        self.logit_scale = settings.logit_scale
        self.logit_bias = settings.logit_bias
        self._settings = settings
        self._tokenizer = tokenizer
        self.tokenizer = EncoderTokenizer(tokenizer, settings.config.text.vocabulary)

    async def embed_text(
        self,
        texts: str | Iterable[str],
        *,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Embeddings:
        """Embed one text or several: float32 (n, D) of length 1, in the given order.

        Texts are cut at `max_tokens` tokens, which the result's `truncated` lists; unless
        `truncate`, a longer one is an InputError. Other options and errors as
        `EmbeddingModel.embed`.
        """
        self._check_open("embed_text")
        await need_numpy("embed_text()", "Embeddings are arrays.")
        read_ids = self._settings.config.text.read_ids
        rows, lengths, truncated = await self._rows_of_texts(
            checked_texts("embed_text", texts),
            self._tokenizer,
            lambda ids: Encoded([*map(read_ids, ids)]),
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )
        # Imported here because it imports numpy.
        from bascule.tasks.embeddings import embeddings_of

        array = np.asarray(rows).reshape(-1, self.dimension)
        return embeddings_of(array, lengths, truncated)

    async def embed_image(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> Array:
        """Embed one image or several: float32 (n, D) of length 1, in the given order.

        Images, options and errors as `ImageModel.classify`.
        """
        return (await self._image_rows("embed_image", images, batch_size, progress))[0]

    async def logits(
        self,
        images: Any,
        texts: str | Iterable[str],
        *,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> Array:
        """Compute logits (n images, n texts) float32: cosine * `logit_scale` + `logit_bias`.

        Options and errors as `embed_image` and `embed_text`.
        """
        texts = await self.embed_text(texts, batch_size=batch_size)
        rows = await self.embed_image(images, batch_size=batch_size, progress=progress)
        cosines = rows @ np.asarray(texts).T
        return np.asarray(self.logit_scale * cosines + self.logit_bias, np.float32)

    async def classify(
        self,
        images: Any,
        labels: Sequence[str],
        *,
        template: str = "a photo of a {}",
        top_k: int | None = None,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> list[ImageClassification]:
        """Classify one image or several among `labels`: the `top_k` (default: all) most probable of
        each.

        A label replaces "{}" in `template`; probabilities are the softmax over labels of `logits`,
        or the sigmoid of each in models that score every label independently. InputError for
        missing or repeated labels, and for a template without "{}"; other options and errors as
        `embed_image` and `embed_text`.
        """
        named = checked_texts("classify, labels", labels)
        if not named or len(set(named)) < len(named):
            raise InputError("classify, labels", "different texts, at least one", repr(named)[:80])
        if not isinstance(template, str) or _PLACE not in template:
            raise InputError("template", f"a text with {_PLACE!r} in it", described(template))
        count = len(named) if top_k is None else whole_number("top_k", top_k, 1)
        texts = [template.replace(_PLACE, label) for label in named]
        options: Any = {"batch_size": batch_size, "progress": progress}
        rows = await self.logits(images, texts, **options)
        squash = self._settings.family.squash
        return [ranked(tuple(named), probabilities(row.tolist(), squash), count) for row in rows]

    async def _prepare(self, batch: int = 1, tokens: int = 16) -> None:
        await super()._prepare(batch, max(tokens, self._settings.min_tokens))

    async def _tune(self, budget_s: float, progress: ProgressCallback | None) -> TuneReport:
        """See `BatchedModel.tune`: texts' buckets and images' passes share the budget."""
        programs = self._fitting.fit_possible(self._settings.programs())
        try:
            report = await self._backend.tune(programs, budget_s=budget_s, progress=progress)
        finally:
            self._prepare_anew()
            self._close_image_passes()
        await self._backend.warm(programs, self.name)
        return report

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: bytes, milliseconds, passes, texts, tokens and images."""
        counts = {**self._batch_stats, **self._image_stats}
        return {**counts, "embed_text_ms": 1e3 * self._counts.busy_s}
