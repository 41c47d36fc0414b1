"""The pictures of a page: embedded once, searched by words or by another one, and classified."""

# pyright: reportPrivateUsage=false
# A page's session has no Device; an index is put where its model runs.

from __future__ import annotations

from typing import Any

from bascule.base.arrays import Array, np
from bascule.choosing.openers import OpenedTier
from bascule.device.device import Device
from bascule.errors import InputError
from bascule.search.index import Index, SearchResult
from bascule.tasks.classifications import probabilities
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel

_TOP = 5


class Album:
    """Pictures by key, and their embeddings by one model."""

    def __init__(self, model: ImageModel | ImageTextModel) -> None:
        self.model = model
        self._device = Device(OpenedTier(model._backend, model.tier_reason))
        self._index = Index(self._device, model.dimension)
        self._rows: dict[str, Array] = {}

    async def add(self, key: str, pixels: Any, width: int, height: int) -> list[tuple[str, float]]:
        """Embed a picture from RGBA bytes; return the most probable of the model's own labels."""
        rgba = np.frombuffer(pixels, np.uint8).reshape(height, width, 4)
        picture = np.ascontiguousarray(rgba[..., :3])
        labels: list[tuple[str, float]] = []
        if isinstance(self.model, ImageTextModel):
            (row,) = await self.model.embed_image(picture)
        else:
            (row,) = await self.model.embed(picture)
            if self.model.labels:
                (result,) = await self.model.classify(picture, top_k=_TOP)
                labels = list(result.probabilities.items())
        if key in self._index:
            await self._index.remove([key])
        await self._index.add(row, [key])
        self._rows[key] = row
        return labels

    async def search(self, text: str) -> list[tuple[str, float]]:
        """Return all pictures with their scores for a text, best first."""
        (row,) = await self._texts("search").embed_text([text])
        return _pairs(await self._index.search(row, max(1, len(self._index))))

    async def like(self, key: str) -> list[tuple[str, float]]:
        """Return all pictures with their scores for one of them, which comes first."""
        row = self._row("like", key)
        return _pairs(await self._index.search(row, max(1, len(self._index))))

    async def classify(self, key: str, labels: list[str], template: str) -> list[tuple[str, float]]:
        """Return the probability of each label for a picture, most probable first."""
        model = self._texts("classify")
        row = self._row("classify", key)
        texts = await model.embed_text([template.replace("{}", label) for label in labels])
        logits = model.logit_scale * (np.asarray(texts) @ row)
        shares = probabilities(logits.tolist(), "softmax")
        return sorted(zip(labels, shares, strict=True), key=lambda pair: -pair[1])

    async def remove(self, keys: list[str]) -> int:
        """Remove pictures; return how many."""
        known = [key for key in keys if key in self._rows]
        for key in known:
            del self._rows[key]
        return await self._index.remove(known)

    def close(self) -> None:
        """Free the index; the model stays."""
        self._index.close()

    def _texts(self, verb: str) -> ImageTextModel:
        if not isinstance(self.model, ImageTextModel):
            hint = "Load a model of images and texts."
            raise InputError(verb, "a model that reads texts, too", self.model.name, hint=hint)
        return self.model

    def _row(self, verb: str, key: str) -> Array:
        row = self._rows.get(key)
        if row is None:
            raise InputError(verb, "a picture of this page", repr(key)[:80])
        return row


def _pairs(result: SearchResult) -> list[tuple[str, float]]:
    return list(zip(result.keys, result.scores.tolist(), strict=True))
