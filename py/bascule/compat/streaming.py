"""`StreamingInferencePipeline`: a generating model by name, and its streamed text."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Unpack

from bascule.base.closing import Closing
from bascule.base.progress import ProgressCallback
from bascule.compat.shared_load import SharedLoad
from bascule.device.loading import load
from bascule.errors import UnsupportedModelError
from bascule.tasks.language import LanguageModel
from bascule.tasks.options import StreamOptions
from bascule.tasks.text_to_text import TextToTextModel


class StreamingInferencePipeline(Closing):
    """Loads its model with the first prompt. Close it, or use it in `async with`.

    `max_length` limits the new tokens of a text, `stream_buffer_size` how many of them are in
    flight on the device before the first is read: more hides a slow readback, fewer arrive more
    smoothly. `quantize` as for `bascule.load`.
    """

    def __init__(
        self,
        model_name: str,
        max_length: int = 256,
        stream_buffer_size: int = 8,
        *,
        tier: str = "auto",
        quantize: int | str | None = None,
        progress: ProgressCallback | None = None,
    ) -> None:
        self.model_name = model_name
        self.max_length = max_length
        self.stream_buffer_size = stream_buffer_size
        self.stats: dict[str, float] = {}
        self._tier = tier
        self._quantize = quantize
        self._progress = progress
        self._loading: SharedLoad[LanguageModel | TextToTextModel] = SharedLoad()

    @property
    def model(self) -> LanguageModel | TextToTextModel | None:
        """The loaded model."""
        return self._loading.model

    async def generate_streaming(
        self, prompt: str, *, raw: bool = False, **options: Unpack[StreamOptions]
    ) -> AsyncGenerator[str]:
        """Answer `prompt`, one user's turn, piece by piece; `stats` has its times afterwards.

        With `raw`, or for a model without a chat template, the text itself is continued; a
        text-to-text model answers it ("translate English to German: Hello world"). Options and
        errors are those of `LanguageModel.stream` and of `bascule.load`. A loop that is left early
        holds the model until the generator is closed (`contextlib.aclosing`).
        """
        model = await self._loading.get(self._load)
        if "max_tokens" not in options:
            options.setdefault("max_new_tokens", self.max_length)
        options.setdefault("steps_in_flight", self.stream_buffer_size)
        if isinstance(model, TextToTextModel) or raw or not model.can_chat:
            stream = model.stream(prompt, **options)
        else:
            stream = model.stream_chat([{"role": "user", "content": prompt}], **options)
        try:
            async for piece in stream:
                yield piece
        finally:
            await stream.aclose()
            self.stats = stream.result.stats

    def close(self) -> None:
        """Free the model; a load in progress ends with an InputError."""
        self._loading.close()

    async def _load(self) -> LanguageModel | TextToTextModel:
        model = await load(
            self.model_name, tier=self._tier, progress=self._progress, quantize=self._quantize
        )
        if not isinstance(model, LanguageModel | TextToTextModel):
            model.close()
            raise UnsupportedModelError(self.model_name, "it generates no text")
        return model
