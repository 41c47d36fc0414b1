"""The inputs and results of a platform's `run_inference`, by the kind of its model."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any, TypeAlias, cast

from bascule.errors import InputError
from bascule.tasks.classifications import probabilities
from bascule.tasks.embedder import EmbeddingModel
from bascule.tasks.generating import Generation
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel
from bascule.tasks.language import LanguageModel
from bascule.tasks.speech import SpeechModel
from bascule.tasks.text_to_text import TextToTextModel

PlatformModel: TypeAlias = (
    EmbeddingModel | LanguageModel | ImageModel | ImageTextModel | SpeechModel | TextToTextModel
)
MODEL_TYPES: Mapping[str, type[PlatformModel]] = {
    "text": EmbeddingModel,
    "text_generation": LanguageModel,
    "vision": ImageModel,
    "multimodal": ImageTextModel,
    "audio": SpeechModel,
    "text_to_text": TextToTextModel,
}
_TEXT, _IMAGE, _AUDIO = "input_text", "image", "audio"
# Inputs, at least one of which is required.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "text": (_TEXT,),
    "text_generation": (_TEXT,),
    "vision": (_IMAGE,),
    "multimodal": (_TEXT, _IMAGE),
    "audio": (_AUDIO,),
    "text_to_text": (_TEXT,),
}


def check_inputs(model_type: str, inputs: object) -> None:
    """InputError unless a model of that type has an input."""
    needed = _NEEDED[model_type]
    expected = f"a mapping with {' or '.join(map(repr, needed))}"
    if not isinstance(inputs, Mapping):
        raise InputError("run_inference", expected, type(inputs).__name__)
    names = cast("Mapping[str, object]", inputs)
    if not set(needed) & set(names):
        result = ", ".join(map(repr, names)) or "an empty one"
        raise InputError("run_inference", expected, result)


async def infer(
    model: PlatformModel, inputs: Mapping[str, Any], batch_size: int | None
) -> dict[str, Any]:
    """Run a model on its inputs; see `UnifiedWebPlatform.run_inference`."""
    if isinstance(model, EmbeddingModel):
        started = perf_counter()
        rows = await model.embed(inputs[_TEXT], batch_size=batch_size)
        if batch_size is None:
            return {"embeddings": rows}
        return {"embeddings": rows, "queries_per_s": len(rows) / (perf_counter() - started)}
    if isinstance(model, ImageModel):
        return await _seen(model, inputs[_IMAGE])
    if isinstance(model, ImageTextModel):
        return await _compared(model, inputs)
    options = {name: value for name, value in inputs.items() if name not in (_TEXT, _AUDIO)}
    if isinstance(model, SpeechModel):
        said = await model.transcribe(inputs[_AUDIO], **options)
        return {"text": said.text, "language": said.language, "segments": said.segments}
    if isinstance(model, TextToTextModel):
        return _written(await model.generate(inputs[_TEXT], **options))
    return _written(await model.chat([{"role": "user", "content": inputs[_TEXT]}], **options))


def _written(generation: Generation) -> dict[str, Any]:
    return {
        "text": generation.text,
        "ids": generation.ids,
        "stop_reason": generation.stop_reason,
        "stats": generation.stats,
    }


async def _seen(model: ImageModel, images: Any) -> dict[str, Any]:
    if not model.labels:
        return {"embeddings": await model.embed(images)}
    result = await model.classify(images)
    return {"labels": [each.label for each in result], "classifications": result}


async def _compared(model: ImageTextModel, inputs: Mapping[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {}
    if _TEXT in inputs:
        results["text_embeddings"] = await model.embed_text(inputs[_TEXT])
    if _IMAGE in inputs:
        results["image_embeddings"] = await model.embed_image(inputs[_IMAGE])
    if len(results) == 2:
        logits = results["image_embeddings"] @ results["text_embeddings"].T * model.logit_scale
        results["probabilities"] = [probabilities(row, "softmax") for row in logits.tolist()]
    return results
