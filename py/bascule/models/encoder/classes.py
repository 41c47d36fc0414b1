"""The labels of a sequence classifier, and how its logits become scores and probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.models.settings import Settings

Squash = Literal["none", "sigmoid", "softmax"]
MAX_LABELS = 1 << 16
_MAX_NAME = 200
_REGRESSION, _SINGLE = "regression", "single_label_classification"
_PROBLEMS = (_REGRESSION, _SINGLE, "multi_label_classification")
_SCORES: Mapping[str, Squash] = {"Identity": "none", "Sigmoid": "sigmoid"}


@dataclass(frozen=True, slots=True)
class Classes:
    """Labels in the order of the logits.

    `probability` converts logits to probabilities ("none": a regression), `score` a pair's single
    logit to its score.
    """

    labels: tuple[str, ...]
    probability: Squash
    score: Squash


def read_classes(config: Mapping[str, Any], library: Mapping[str, Any], file: str) -> Classes:
    """Read a config.json, and a config_sentence_transformers.json or an empty one.

    Probabilities are those of transformers' text-classification pipeline, scores those of
    sentence-transformers' CrossEncoder. ModelFileError, UnsupportedModelError.
    """
    labels = _labels(config, file)
    problem = config.get("problem_type")
    if problem is not None and problem not in _PROBLEMS:
        message = f"problem_type is {_short(problem)}, expected one of {', '.join(_PROBLEMS)}"
        raise ModelFileError(file, message)
    if problem == _REGRESSION:
        probability: Squash = "none"
    elif problem == _PROBLEMS[2] or len(labels) == 1:
        probability = "sigmoid"
    else:
        probability = "softmax"
    return Classes(labels, probability, _score(config, library, file))


def _labels(config: Mapping[str, Any], file: str) -> tuple[str, ...]:
    named = config.get("id2label")
    # transformers leaves out its own default.
    count = Settings(config, file).size("num_labels", 2, MAX_LABELS)
    if named is None:
        return tuple(f"LABEL_{i}" for i in range(count))
    if not isinstance(named, dict) or not 1 <= len(named) <= MAX_LABELS:
        problem = f"id2label is {_short(named)}, expected 1 to {MAX_LABELS:,} labels by their ids"
        raise ModelFileError(file, problem)
    labels: list[str] = []
    for index in range(len(named)):
        label = named.get(str(index))
        if not isinstance(label, str) or len(label) > _MAX_NAME:
            problem = f"id2label has {_short(label)} for {index}, expected a name"
            raise ModelFileError(file, problem)
        labels.append(label)
    if len(set(labels)) < len(labels):
        raise ModelFileError(file, "id2label has one name for two ids")
    if "num_labels" in config and config["num_labels"] is not None and count != len(labels):
        raise ModelFileError(file, f"num_labels is {count:,}, and id2label has {len(labels):,}")
    return tuple(labels)


def _score(config: Mapping[str, Any], library: Mapping[str, Any], file: str) -> Squash:
    newer = config.get("sentence_transformers")
    if newer is not None and not isinstance(newer, dict):
        raise ModelFileError(file, f"sentence_transformers is {_short(newer)}, expected an object")
    name = library.get("activation_fn")
    if name is None:
        name = (newer or {}).get("activation_fn")
    if name is None:
        name = config.get("sbert_ce_default_activation_function")
    if name is None:
        return "sigmoid"
    short = name.rsplit(".", 1)[-1] if isinstance(name, str) else ""
    if not str(name).startswith("torch.nn.") or short not in _SCORES:
        problem = f"its activation_fn is {_short(name)}, and this version runs {', '.join(_SCORES)}"
        raise UnsupportedModelError(file, problem)
    return _SCORES[short]


def _short(value: object) -> str:
    return repr(value)[:60]
