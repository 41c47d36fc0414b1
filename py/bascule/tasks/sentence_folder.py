"""Read modules.json and the folders that it names, all untrusted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from bascule.base.json_object import json_object, read_json
from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.tasks.sentence_modules import (
    SENTENCE,
    TOKENS,
    Dense,
    LayerNorm,
    Module,
    Normalize,
    Pooling,
)

MODULES = "modules.json"
ReadOptional = Callable[[str], Awaitable[bytes | None]]

_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_MODULES = 32
_LARGEST = 1 << 24
# Hugging Face's names of pooling modes and ours, in the order in which old settings are
# concatenated.
_POOLINGS: Mapping[str, str] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
_OLD_POOLINGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: Mapping[str, str] = {
    "Identity": "none",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "SiLU": "silu",
}
_FEATURES = (TOKENS, SENTENCE)


async def read_modules(read: ReadOptional, place: str) -> tuple[Module, ...] | None:
    """Read what follows the Transformer of the model folder at `place`; None without modules.json.

    `read(file)` returns a file's bytes, or None if it is missing. UnsupportedModelError for the
    first unsupported module or setting, ModelFileError for unsound files.
    """
    data = await read(MODULES)
    if data is None:
        await _check_lone_pooling(read, place)
        return None
    where = f"{place}/{MODULES}"
    listed = _listed(data, where)
    if not listed or _kind(*listed[0]) != "Transformer":
        first = listed[0][0][:80] if listed else "none"
        raise UnsupportedModelError(where, f"its first module is {first!r}, and not a Transformer")
    if listed[0][1]:
        problem = f"its Transformer is in the folder {listed[0][1]!r}, and not beside modules.json"
        hint = "Save the model again with a current sentence-transformers: save_pretrained(FOLDER)."
        raise UnsupportedModelError(where, problem, hint=hint)
    rest = listed[1:]
    for kind, folder in rest:
        if _kind(kind, folder) not in _READERS:
            raise _unknown(kind, folder, where)
    modules = await asyncio.gather(*(_module(read, place, *entry) for entry in rest))
    result = tuple(module for module in modules if module is not None)
    if not any(isinstance(module, Pooling) for module in result):
        raise UnsupportedModelError(where, "it has no Pooling, so it gives no sentence embeddings")
    return result


async def check_lone_transformer(read: ReadOptional, place: str) -> None:
    """UnsupportedModelError if modules.json names more than one Transformer beside it."""
    data = await read(MODULES)
    where = f"{place}/{MODULES}"
    for at, entry in enumerate([] if data is None else _listed(data, where)):
        if at or _kind(*entry) != "Transformer" or entry[1]:
            named = f"the module {entry[0][:80]!r}"
            problem = f"it asks for {named}, and a classifier runs its Transformer's own head alone"
            raise UnsupportedModelError(where, problem)


def _listed(data: bytes, where: str) -> list[tuple[str, str]]:
    """Return each module's type and folder."""
    result = read_json(data, where)
    if not isinstance(result, list) or len(result) > _MAX_MODULES:
        raise ModelFileError(where, f"it is not a list of at most {_MAX_MODULES} modules")
    entries: list[tuple[str, str]] = []
    for entry in result:
        kind, folder = (
            (entry.get("type"), entry.get("path", "")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise ModelFileError(where, "a module has no type or path")
        if folder and not _FOLDER.fullmatch(folder):
            raise ModelFileError(where, f"the path {folder[:80]!r} is not a folder's name")
        entries.append((kind, folder))
    return entries


def _kind(kind: str, _: str) -> str:
    """Return the name of one of sentence-transformers' own classes; "" for another library's."""
    return kind.rsplit(".", 1)[-1] if kind.startswith("sentence_transformers.") else ""


def _unknown(kind: str, folder: str, where: str) -> UnsupportedModelError:
    named = f"the module {kind[:80]!r}" + (f" in the folder {folder!r}" if folder else "")
    known = ", ".join(["Transformer", *_READERS])
    hint = "Use a model of these modules, or embed with sentence-transformers itself."
    return UnsupportedModelError(
        where, f"it asks for {named}, and this version runs {known}", hint=hint
    )


async def _module(read: ReadOptional, place: str, kind: str, folder: str) -> Module | None:
    name = _kind(kind, folder)
    if not folder and name not in _NEED_NO_FOLDER:
        raise ModelFileError(f"{place}/{MODULES}", f"its module {name} has no folder")
    where = f"{place}/{folder}/config.json" if folder else f"{place}/{MODULES}"
    data = await read(f"{folder}/config.json") if folder else None
    if data is None and name not in _NEED_NO_FOLDER:
        raise ModelFileError(where, f"it is missing, and modules.json names the module {name}")
    return _READERS[name]({} if data is None else json_object(data, where), folder, where)


async def _check_lone_pooling(read: ReadOptional, place: str) -> None:
    """Without modules.json the pooling is a mean; a folder that says otherwise is incomplete."""
    where = f"{place}/1_Pooling/config.json"
    data = await read("1_Pooling/config.json")
    if data is None:
        return
    pooling = _pooling(json_object(data, where), "1_Pooling", where)
    if pooling.kinds != Pooling().kinds:
        problem = f"it asks for the pooling {', '.join(pooling.kinds)}, and modules.json is missing"
        raise ModelFileError(where, problem, hint="Copy all files of the model's folder.")


def _pooling(config: Mapping[str, Any], folder: str, where: str) -> Pooling:
    del folder
    known = ("pooling_mode", "include_prompt", *_OLD_POOLINGS)
    _check_keys(config, (*known, "embedding_dimension", "word_embedding_dimension"), where)
    old = [mode for key, mode in _OLD_POOLINGS.items() if _flag(config, key, False, where)]
    modes = config.get("pooling_mode", old or "mean")
    listed = modes if isinstance(modes, list) else [modes]
    for mode in listed:
        if not isinstance(mode, str) or mode not in _POOLINGS:
            problem = f"pooling_mode is {str(mode)[:40]!r}, and this version runs "
            raise UnsupportedModelError(where, problem + ", ".join(_POOLINGS))
    if not 1 <= len(listed) <= len(_POOLINGS):
        raise ModelFileError(where, f"pooling_mode lists {len(listed):,} modes")
    skips = not _flag(config, "include_prompt", True, where)
    return Pooling(tuple(_POOLINGS[mode] for mode in listed), skips, where)


def _dense(config: Mapping[str, Any], folder: str, where: str) -> Dense:
    names = ("module_input_name", "module_output_name")
    known = ("in_features", "out_features", "bias", "activation_function", "use_residual", *names)
    _check_keys(config, known, where)
    source, target = _features(config, where)
    return Dense(
        folder,
        in_features=_size(config, "in_features", where),
        out_features=_size(config, "out_features", where),
        bias=_flag(config, "bias", True, where),
        activation=_activation(config.get("activation_function", "torch.nn.Tanh"), where),
        residual=_flag(config, "use_residual", False, where),
        source=source,
        target=target,
        place=where,
    )


def _activation(name: object, where: str) -> str:
    """Return our name of an activation class of torch.nn."""
    short = name.rsplit(".", 1)[-1] if isinstance(name, str) else ""
    if not str(name).startswith("torch.nn.") or short not in _ACTIVATIONS:
        problem = f"activation_function is {str(name)[:80]!r}, and this version runs "
        raise UnsupportedModelError(where, problem + ", ".join(_ACTIVATIONS))
    return _ACTIVATIONS[short]


def _layer_norm(config: Mapping[str, Any], folder: str, where: str) -> LayerNorm:
    _check_keys(config, ("dimension",), where)
    return LayerNorm(folder, _size(config, "dimension", where), where)


def _normalize(config: Mapping[str, Any], folder: str, where: str) -> Normalize:
    del folder
    source, target = _features(config, where)
    return Normalize(source, target)


def _dropout(config: Mapping[str, Any], folder: str, where: str) -> None:
    """Ignore dropout: it acts only in training."""
    del config, folder, where


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, str], Module | None]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _dropout,
}
_NEED_NO_FOLDER = ("Normalize", "Dropout")


def _features(config: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return the features that a module reads and writes."""
    source = config.get("module_input_name", SENTENCE)
    target = config.get("module_output_name")
    target = source if target is None else target
    for name in (source, target):
        if name not in _FEATURES:
            problem = f"it reads or writes {str(name)[:40]!r}, and this version has "
            raise UnsupportedModelError(where, problem + ", ".join(_FEATURES))
    return source, target


def _check_keys(config: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    """Reject a setting that is not read: it could change the embeddings."""
    for key in config:
        if key not in known:
            raise UnsupportedModelError(where, f"its setting {key[:40]!r} is not known")


def _flag(config: Mapping[str, Any], key: str, default: bool, where: str) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ModelFileError(where, f"{key} is {str(value)[:40]}, expected true or false")
    return value


def _size(config: Mapping[str, Any], key: str, where: str) -> int:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _LARGEST:
        problem = f"{key} is {str(value)[:40]}, expected a whole number 1 to {_LARGEST:,}"
        raise ModelFileError(where, problem)
    return value
