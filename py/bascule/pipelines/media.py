"""Pipelines of recordings and images, with Hugging Face's inputs and outputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bascule.base.arguments import described, whole_number
from bascule.errors import InputError
from bascule.pipelines.texts import Options, flag
from bascule.tasks.image_text import ImageTextModel
from bascule.tasks.images import ImageModel
from bascule.tasks.speech import SpeechModel

_HYPOTHESIS = "This is a photo of {}."


async def speech_recognition(model: SpeechModel, inputs: Any, options: Options) -> Any:
    """Return {"text"} of a recording, with `return_timestamps` also its "chunks"; a list of
    several.

    Chunks are segments, or words with `return_timestamps` "word". A recording is what
    `SpeechModel.transcribe` takes, or {"raw": samples, "sampling_rate": hertz}.
    """
    words = options.get("return_timestamps") == "word"
    if words:
        options = {**options, "return_timestamps": True, "word_timestamps": True}
    timed = flag("return_timestamps", options)
    many = isinstance(inputs, list | tuple) and not _are_samples(inputs)
    results = [
        await _recognized(model, each, timed, words, dict(options))
        for each in (inputs if many else [inputs])
    ]
    return results if many else results[0]


def _are_samples(inputs: Any) -> bool:
    return bool(inputs) and isinstance(inputs[0], int | float)


async def _recognized(
    model: SpeechModel, audio: Any, timed: bool, words: bool, options: Options
) -> Options:
    if isinstance(audio, Mapping):
        audio = _samples(audio, options)  # pyright: ignore[reportUnknownArgumentType]
    transcription = await model.transcribe(audio, **options)
    if not timed:
        return {"text": transcription.text}
    parts = [part for s in transcription.segments for part in (s.words if words else [s])]
    chunks = [{"timestamp": (part.start, part.end), "text": part.text} for part in parts]
    return {"text": transcription.text, "chunks": chunks}


def _samples(recording: Mapping[str, Any], options: Options) -> Any:
    """Take samples and their rate from one of Hugging Face's dicts."""
    name = "array" if "array" in recording else "raw"
    if set(recording) != {name, "sampling_rate"}:
        expected = '{"raw": samples, "sampling_rate": hertz}'
        raise InputError("automatic-speech-recognition", expected, described(recording))
    if "sample_rate" in options:
        raise InputError("sample_rate", "no other rate beside sampling_rate", "both")
    options["sample_rate"] = recording["sampling_rate"]
    return recording[name]


async def image_classification(model: ImageModel, inputs: Any, options: Options) -> list[Any]:
    """Return the `top_k` (5) best of an image as {"label", "score"}; a list for several."""
    options["top_k"] = whole_number("top_k", options.get("top_k", 5), 1)
    results = [
        [{"label": label, "score": score} for label, score in each.probabilities.items()]
        for each in await model.classify(inputs, **options)
    ]
    return results if isinstance(inputs, list | tuple) else results[0]


async def zero_shot_images(model: ImageTextModel, inputs: Any, options: Options) -> list[Any]:
    """Return {"score", "label"} of each of `candidate_labels`, best first; a list of these for
    several.

    A label replaces "{}" in `hypothesis_template` ("This is a photo of {}.").
    """
    if "candidate_labels" not in options:
        raise InputError("candidate_labels", "a list of labels", "none")
    labels = options.pop("candidate_labels")
    template = options.pop("hypothesis_template", _HYPOTHESIS)
    results = [
        [{"score": score, "label": label} for label, score in each.probabilities.items()]
        for each in await model.classify(inputs, labels, template=template, **options)
    ]
    return results if isinstance(inputs, list | tuple) else results[0]


async def image_features(
    model: ImageModel | ImageTextModel, inputs: Any, options: Options
) -> list[Any]:
    """Return the features of an image (C), or of each of several (n, C), as lists of floats.

    A model of images and texts returns its embeddings, without a choice of pooling.
    """
    if isinstance(model, ImageTextModel):
        for name in ("pooling", "normalize"):
            if name in options:
                expected = "no such option for a model of images and texts"
                raise InputError(name, expected, described(options[name]))
        rows = (await model.embed_image(inputs, **options)).tolist()
    else:
        rows = (await model.embed(inputs, **options)).tolist()
    return rows if isinstance(inputs, list | tuple) else rows[0]
