"""A loaded image model: images in, labels or features out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bascule.base.arguments import one_of, whole_number
from bascule.base.arrays import Array, np
from bascule.base.dtypes import DType
from bascule.errors import InputError
from bascule.models.encoder.classes import Classes
from bascule.models.family import ImageFamily
from bascule.models.image.config import ImageConfig
from bascule.models.image.graph import ImageEncoderGraph, Normalization
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Program
from bascule.tasks.classifications import probabilities
from bascule.tasks.image_runs import BATCHES, ImageProgress, ImageRuns
from bascule.tasks.loaded import Placement
from bascule.vision.processing import ImageProcessing

Pooling = Literal["cls", "mean"]


@dataclass(frozen=True, slots=True)
class ImageClassification:
    """The most probable `label` of an image, and its `top_k` labels, best first."""

    label: str
    probability: float
    probabilities: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ImageModelSettings:
    """The settings of a folder; a model without `classes` has no labels."""

    family: ImageFamily
    config: ImageConfig
    processing: ImageProcessing
    classes: Classes | None
    weights: DType = "f32"

    @property
    def image_places(self) -> int:
        """See `ImageSettings`."""
        return self.config.cut.places

    @property
    def label_features(self) -> int:
        """Features of an image that its classifier reads."""
        return self.config.layers.hidden * (2 if self.family.labels_of_means else 1)

    def image_program(self, batch: int) -> Program:
        """Record pixels -> the class token's features (B, C), the patches' mean, logits (B, N)."""
        graph = Graph(f"{self.family.name} images")
        norm = normalization(self.processing)
        to = ImageEncoderGraph(graph, self.config, batch, norm, self.weights)
        lengths = to.lengths()
        x = self.family.phases["image"](to, lengths)  # (B, T, C)
        token = graph.call("pool", x, lengths, kind="cls")
        graph.output(token)
        # The class token comes first, and is not a patch.
        skipped = graph.input("skipped", (batch,), "u32")
        mean = graph.call("pool", x, lengths, skipped, kind="mean")
        graph.output(mean)
        if self.classes is not None:
            n, name = len(self.classes.labels), self.family.labels
            of_means = self.family.labels_of_means
            features = graph.call("concat", token, mean) if of_means else token
            weight = graph.parameter(f"{name}.weight", (n, self.label_features))
            bias = graph.parameter(f"{name}.bias", (n,))
            graph.output(graph.call("linear", features, weight, bias, activation="none"))
        return freeze(graph)

    def programs(self) -> list[Program]:
        """Record the passes of all batch sizes."""
        return [self.image_program(batch) for batch in BATCHES]


def normalization(processing: ImageProcessing) -> Normalization:
    """Return how a pass normalizes the channels of processed images."""
    return Normalization(processing.factor, processing.mean, processing.std)


class ImageModel(ImageRuns):
    """An image model, made by `bascule.load`.

    `labels` are its classifier's in the order of the logits, empty without a classifier;
    `dimension` is the width of its features. Close it, or use it in `async with`, to free the
    device's memory.
    """

    def __init__(self, placement: Placement, settings: ImageModelSettings) -> None:
        super().__init__(settings, placement)
        self._settings = settings
        self.labels = settings.classes.labels if settings.classes else ()
        self.dimension = settings.config.layers.hidden

    async def classify(
        self,
        images: Any,
        *,
        top_k: int = 5,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> list[ImageClassification]:
        """Classify one image or several: the `top_k` most probable labels of each.

        An image is a path, the bytes of a file, a PIL image or an array (H, W, 3) uint8. At most
        `batch_size` images (default and maximum 8) run in one pass; `progress(done, total)` counts
        images. InputError for what is not an image, cannot be decoded or has more than 67
        megapixels, and for a model without labels; SetupError if decoding needs Pillow and it is
        not installed; NotFiniteError for logits that are not finite.
        """
        count = whole_number("top_k", top_k, 1)
        if self._settings.classes is None:
            hint = "embed(images) gives its features."
            raise InputError("classify", "a model with labels", self.name, hint=hint)
        logits = (await self._image_rows("classify", images, batch_size, progress))[2]
        squash = self._settings.classes.probability
        return [ranked(self.labels, probabilities(row.tolist(), squash), count) for row in logits]

    async def logits(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> Array:
        """Compute the logits of images (n, N) float32; options and errors as `classify`."""
        if self._settings.classes is None:
            raise InputError("logits", "a model with labels", self.name)
        return (await self._image_rows("logits", images, batch_size, progress))[2]

    async def embed(
        self,
        images: Any,
        *,
        pooling: Pooling = "cls",
        normalize: bool = False,
        batch_size: int | None = None,
        progress: ImageProgress | None = None,
    ) -> Array:
        """Compute features of images (n, C) float32: the class token's, or the patches' mean.

        With `normalize` they have length 1. Other options and errors as `classify`.
        """
        kind = one_of("pooling", pooling, ("cls", "mean"))
        result = await self._image_rows("embed", images, batch_size, progress)
        rows = result[0] if kind == "cls" else result[1]
        return unit_rows(rows) if normalize else rows

    def _tunable(self) -> list[Program]:
        """See `LoadedModel._tunable`."""
        return self._fitting.fit_possible(self._settings.programs())

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the load: bytes, milliseconds, passes and images."""
        return {**self._image_stats, **self.device_stats}

    async def _prepare(self) -> None:
        """See `LoadedModel._prepare`."""
        await self._image_pass(1)


def ranked(labels: tuple[str, ...], shares: list[float], count: int) -> ImageClassification:
    """Return the `count` most probable labels with their probabilities."""
    order = sorted(range(len(labels)), key=lambda at: -shares[at])[:count]
    best = {labels[at]: shares[at] for at in order}
    return ImageClassification(labels[order[0]], shares[order[0]], best)


def unit_rows(rows: Array) -> Array:
    """Return rows scaled to length 1; zero rows are unchanged."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
