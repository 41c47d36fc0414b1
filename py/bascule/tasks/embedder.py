"""A loaded sentence encoder: texts in, embeddings out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bascule.base.arrays import need_numpy, np
from bascule.base.dtypes import DType
from bascule.program.compile import freeze
from bascule.program.program import Dim, Program
from bascule.tasks.batched import (
    BatchedModel,
    Encoded,
    checked_texts,
)
from bascule.tasks.buckets import SMALLEST, Bucket, all_buckets
from bascule.tasks.loaded import Placement
from bascule.tasks.prompts import Prompts
from bascule.tasks.sentence_graph import Encoder, sentence_encoder
from bascule.tasks.sentence_modules import DEFAULT_MODULES, Module, skips_prompts
from bascule.text import Tokenizer
from bascule.text.encoder import EncoderTokenizer

if TYPE_CHECKING:
    from bascule.tasks.embeddings import Embeddings


@dataclass(frozen=True, slots=True)
class EmbedderSettings:
    """The settings of a model folder, and the storage dtype of the weights.

    With `truncate_dim` only that many numbers of an embedding are returned (None: all).
    """

    encoder: Encoder
    max_tokens: int
    modules: tuple[Module, ...] = DEFAULT_MODULES
    prompts: Prompts = field(default_factory=Prompts)
    truncate_dim: int | None = None
    weights: DType = "f32"

    @property
    def dimension(self) -> int:
        """The number of elements of an embedding."""
        (output,) = self.program(SMALLEST).outputs
        width = output.limits[-1]
        return width if self.truncate_dim is None else min(self.truncate_dim, width)

    def program(self, bucket: Bucket) -> Program:
        """Record the forward pass of one bucket."""
        batch, tokens = Dim("B", bucket.batch), Dim("T", bucket.tokens)
        return freeze(
            sentence_encoder(
                self.encoder,
                batch,
                tokens,
                modules=self.modules,
                weights=self.weights,
            )
        )

    def programs(self) -> list[Program]:
        """Record the forward passes of all buckets."""
        return [self.program(bucket) for bucket in all_buckets(self.max_tokens)]


@dataclass(frozen=True, slots=True)
class EmbeddedRows:
    """Embeddings as (n * C,) float32, row by row; other fields as in `Embeddings`."""

    rows: memoryview[float]
    n_tokens: tuple[int, ...]
    truncated: tuple[int, ...]


class EmbeddingModel(BatchedModel):
    """Made by `bascule.load`. Close it, or use it in `async with`, to free the device's memory."""

    _what = "the embedding"
    _verb = "embed"

    def __init__(
        self, placement: Placement, settings: EmbedderSettings, tokenizer: Tokenizer
    ) -> None:
        self.dimension = settings.dimension
        super().__init__(placement, settings, self.dimension)
        self._settings = settings
        self._tokenizer = tokenizer
        self.tokenizer = EncoderTokenizer(tokenizer, settings.encoder.config.vocabulary)

    @property
    def prompts(self) -> Mapping[str, str]:
        """The model's prompts by name."""
        return self._settings.prompts.texts

    async def embed(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> Embeddings:
        """Embed texts: float32 (n, C) in the given order, of length 1 if the model normalizes.

        `texts` are a string or any ordered iterable of strings (a list, a numpy array, a pandas
        Series, a generator). Each text is preceded by `prompt`, or the model's prompt of that name
        (see `prompts`), or its default prompt. Texts are cut at `max_tokens` tokens, which the
        result's `truncated` lists; unless `truncate`, a longer one is an InputError. At most
        `batch_size` texts (default and maximum 32) run in one pass. `progress(done, total)` counts
        texts. InputError for anything but strings or for a prompt that the model does not have,
        NotFiniteError instead of an embedding that is not finite. Cancelling the task stops after
        the batches in flight. If memory runs out, caches are freed and smaller batches tried;
        GpuOutOfMemoryError or MemoryError if not even one text fits.
        """
        await need_numpy("embed()", "embed_rows() gives the same numbers as a memoryview.")
        result = await self.embed_rows(
            texts,
            prompt_name=prompt_name,
            prompt=prompt,
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )
        # Imported here because it imports numpy.
        from bascule.tasks.embeddings import embeddings_of

        array = np.asarray(result.rows).reshape(-1, self.dimension)
        return embeddings_of(array, result.n_tokens, result.truncated)

    async def embed_rows(
        self,
        texts: str | Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate: bool = True,
        progress: Callable[[int, int], None] | None = None,
    ) -> EmbeddedRows:
        """As `embed`, without numpy."""
        self._check_open("embed")
        before = self._settings.prompts.choose(prompt, prompt_name)
        checked = [before + text for text in checked_texts("embed", texts)]
        skipped = self._skipped(before)
        result = await self._rows_of_texts(
            checked,
            self._tokenizer,
            lambda ids: self._with_skipped(Encoded(ids), skipped),
            batch_size=batch_size,
            truncate=truncate,
            progress=progress,
        )
        return EmbeddedRows(*result)

    def _skipped(self, prompt: str) -> int:
        """Return how many tokens of each text belong to the prompt, if pooling leaves them out."""
        if not prompt or not skips_prompts(self._settings.modules):
            return 0
        alone, empty = self._tokenizer.encode([prompt, ""])
        ends_special = bool(alone and empty) and alone[-1] == empty[-1]
        return len(alone) - ends_special

    def _with_skipped(self, encoded: Encoded, skipped: int = 0) -> Encoded:
        if not skips_prompts(self._settings.modules):
            return encoded
        return replace(encoded, per_text={"skipped": [skipped] * len(encoded.ids)})

    def _of_ids(self, ids: Sequence[int]) -> Encoded:
        return self._with_skipped(super()._of_ids(ids))

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: bytes, milliseconds, passes, texts and tokens."""
        return {**self._batch_stats, "embed_ms": 1e3 * self._counts.busy_s}
