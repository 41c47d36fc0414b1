"""The passes of a model of images and texts, and their settings."""

from __future__ import annotations

from dataclasses import dataclass

from bascule.base.dtypes import DType
from bascule.models.family import ImageTextFamily
from bascule.models.image.graph import ImageEncoderGraph
from bascule.models.image_text.config import ImageTextConfig
from bascule.models.image_text.graph import TextRecorder
from bascule.program.compile import freeze
from bascule.program.graph import Graph
from bascule.program.program import Dim, Program
from bascule.tasks.buckets import Bucket, all_buckets
from bascule.tasks.image_runs import BATCHES
from bascule.tasks.images import normalization
from bascule.vision.processing import ImageProcessing


@dataclass(frozen=True, slots=True)
class ImageTextSettings:
    """The settings of a folder; logits are cosines * `logit_scale` + `logit_bias`."""

    family: ImageTextFamily
    config: ImageTextConfig
    processing: ImageProcessing
    logit_scale: float
    logit_bias: float = 0.0
    weights: DType = "f32"

    @property
    def image_places(self) -> int:
        """See `ImageSettings`."""
        return self.config.image.cut.places

    @property
    def max_tokens(self) -> int:
        """See `BatchSettings`."""
        return self.config.text.positions

    @property
    def min_tokens(self) -> int:
        """Tokens of the shortest text in a pass: padded texts all have the same length."""
        return 1 if self.config.text.pad is None else self.max_tokens

    def image_program(self, batch: int) -> Program:
        """Record pixels -> embeddings of length 1 (B, D)."""
        graph = Graph(f"{self.family.name} images")
        norm = normalization(self.processing)
        to = ImageEncoderGraph(graph, self.config.image, batch, norm, self.weights)
        graph.output(self.family.encode_image(to, to.lengths(), self.config.dimension))
        return freeze(graph)

    def program(self, bucket: Bucket) -> Program:
        """Record ids (B, T) and lengths (B) -> embeddings of length 1 (B, D)."""
        graph = Graph(f"{self.family.name} texts")
        batch, tokens = Dim("B", bucket.batch), Dim("T", bucket.tokens)
        ids = graph.input("ids", (batch, tokens), "u32")
        lengths = graph.input("lengths", (batch,), "u32")
        to = TextRecorder(graph, self.config, ids, lengths, self.weights)
        graph.output(self.family.encode_text(to))
        return freeze(graph)

    def image_programs(self) -> list[Program]:
        """Record the passes of all batch sizes of images."""
        return [self.image_program(batch) for batch in BATCHES]

    def programs(self) -> list[Program]:
        """Record the passes of all batch sizes of images and of all buckets of texts."""
        texts = [b for b in all_buckets(self.max_tokens) if b.tokens >= self.min_tokens]
        return [*self.image_programs(), *map(self.program, texts)]
