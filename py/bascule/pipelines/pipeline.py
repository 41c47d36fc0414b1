"""A task by name: a model that does it, called like Hugging Face's pipelines."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from typing import Any

from bascule.base.arguments import described, did_you_mean
from bascule.base.closing import Closing
from bascule.base.page_settings import IN_PAGE
from bascule.base.progress import ProgressCallback
from bascule.device.loading import load
from bascule.errors import InputError, ModelFileError
from bascule.pipelines.table import OTHER_NAMES, TASKS
from bascule.tasks.models import AnyModel
from bascule.tasks.registry import known_hashes


class Pipeline(Closing):
    """A task and its model: `await pipe(inputs)`; made by `bascule.pipeline`.

    `close` closes the model, as does the end of `async with`.
    """

    def __init__(self, task: str, model: AnyModel) -> None:
        self.task = task
        self.model = model

    def __repr__(self) -> str:
        return f"<Pipeline {self.task}: {self.model!r}>"

    async def __call__(self, inputs: Any, **options: Any) -> Any:
        """Run the task on one input, or on each of a list; docs/models.md has their shapes.

        Options are those of the model's own method, and a few of the task. InputError for invalid
        inputs and unknown options; other errors as the model's method.
        """
        task = TASKS[self.task]
        for name in options:
            if name not in task.options:
                expected = f"some of {', '.join(sorted(task.options))}"
                hint = did_you_mean(name, task.options)
                raise InputError(f"{self.task}, options", expected, repr(name), hint=hint)
        return await task.run(self.model, inputs, options)

    def close(self) -> None:
        """Close the model, and free the device's memory."""
        self.model.close()


async def pipeline(
    task: str,
    model: str | PathLike[str] | None = None,
    *,
    tier: str | Sequence[str] = "auto",
    quantize: int | str | None = None,
    progress: ProgressCallback | None = None,
) -> Pipeline:
    """Load a model for a task by its name on Hugging Face; call it with inputs and `await` the
    result.

    Tasks: "feature-extraction", "sentence-similarity", "text-generation", "text2text-generation",
    "text-classification", "reranking", "automatic-speech-recognition", "image-classification",
    "zero-shot-image-classification" and "image-feature-extraction". The default `model` is
    all-MiniLM-L6-v2, SmolLM2-135M-Instruct or whisper-tiny.en, if one of them does the task. The
    other arguments and errors are those of `load`; InputError also for an unknown task, and for a
    model of another kind, before its weights are loaded.
    """
    checked = _checked_task(task)
    named = TASKS[checked].default_model if model is None else model
    if named is None:
        expected = f"{TASKS[checked].needs}: a folder, or the URL of one"
        raise InputError(f"pipeline {checked!r}, model", expected, "None")
    options: Any = {"tier": tier, "quantize": quantize, "progress": progress}
    loaded = await load(named, wait=False, **options)
    try:
        _check_kind(checked, loaded)
        await loaded.loaded()
    except BaseException as error:
        loaded.close()
        if isinstance(error, ModelFileError) and not IN_PAGE and known_hashes(str(named)):
            error.advise_pull(str(named))
        raise
    return Pipeline(checked, loaded)


def _checked_task(task: object) -> str:
    if isinstance(task, str) and task in TASKS:
        return task
    other = OTHER_NAMES.get(task) if isinstance(task, str) else None
    hint = f"Did you mean {other!r}?" if other else did_you_mean(task, TASKS)
    raise InputError("task", f"one of {', '.join(TASKS)}", described(task), hint=hint)


def _check_kind(task: str, model: AnyModel) -> None:
    """InputError that lists the tasks of a model of another kind."""
    if TASKS[task].fits(model):
        return
    others = [repr(name) for name, each in TASKS.items() if each.fits(model)]
    result = f"{model.name}, which loads as {type(model).__name__}"
    hint = f"This model does {' or '.join(others)}."
    raise InputError(f"pipeline {task!r}, model", TASKS[task].needs, result, hint=hint)
