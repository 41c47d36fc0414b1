"""Models of the Hugging Face hub by id: the files that a load may read, at one pinned revision.

A pulled model's folder holds these files, a manifest of their hashes, and bascule-source.json: the
id, the requested revision, and its commit.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bascule.base.folders import models_folder, open_regular, write_whole
from bascule.base.progress import Progress, ProgressCallback
from bascule.errors import (
    HashMismatchError,
    InputError,
    ModelFileError,
    ModelNotFoundError,
    SetupError,
    SourceError,
    UnsupportedModelError,
)
from bascule.tasks.registry import hub_folder
from bascule.weights.manifest import parse_manifest, write_manifest
from bascule.weights.names import INDEX, MANIFEST, OLD_TOKENIZER, TOKENIZER, may_be_read

HUB_TIMEOUT_S = 10
ORIGIN = "bascule-source.json"
_WHOLE = "model.safetensors"
_WEIGHTS = (".bin", ".gguf", ".onnx", ".safetensors", ".h5")
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a repository; `sha256` is "" if the hub does not report it."""

    name: str
    nbytes: int = 0
    sha256: str = ""


async def pull_repo(name: str, *, force: bool, notify: ProgressCallback) -> Path:
    """Fetch OWNER/NAME or OWNER/NAME@REVISION from the hub unless it is there; return its folder.

    A pulled model stays at its commit unless `force` is set or another revision is requested.
    ModelNotFoundError, UnsupportedModelError for a model without safetensors, SourceError, OSError.
    """
    repo, _, revision = name.partition("@")
    if revision and not _REVISION.fullmatch(revision):
        raise InputError("hub revision", "a branch, tag or commit", repr(revision[:80]))
    home = hub_folder(repo)
    if not force and _is_there(home, repo, revision):
        if not await asyncio.to_thread(damaged_files, home):
            return home
        revision = revision or str(_origin(home).get("commit", ""))
    notify(Progress("hub", 0, 0))
    await hub_answers(repo)
    commit, files = await _listed(repo, revision)
    home.parent.mkdir(parents=True, exist_ok=True)
    _check_disk(repo, home.parent, sum(file.nbytes for file in files))
    # Beside its final place, so that the last step renames within one file system.
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".pull-") as scratch:
        fresh = Path(scratch) / "model"
        for done, file in enumerate(files):
            notify(Progress("hub", done, len(files), "files"))
            await fetch_file(repo, commit, file, fresh)
        shutil.rmtree(fresh / ".cache", ignore_errors=True)  # the library's own notes
        await write_manifest(fresh, 4, notify)
        origin = {"repo": repo, "revision": revision or "main", "commit": commit}
        write_whole(fresh / ORIGIN, (json.dumps(origin, indent=1) + "\n").encode(), mode=0o666)
        if home.exists():
            home.rename(Path(scratch) / "old")
        fresh.rename(home)
    notify(Progress("ready", 1, 1, "steps"))
    return home


def pulled_repos() -> dict[str, Path]:
    """Return the folders of pulled models by hub id."""
    results: dict[str, Path] = {}
    try:
        folders = sorted(models_folder().iterdir())
    except FileNotFoundError:
        return results
    for folder in folders:
        repo = _origin(folder).get("repo")
        if isinstance(repo, str) and hub_folder(repo) == folder:
            results[repo] = folder
    return results


def damaged_files(folder: Path) -> list[str]:
    """Return the files of a pulled model that do not match its manifest."""
    try:
        with open_regular(folder / MANIFEST) as handle:
            expected = parse_manifest(handle.read(), str(folder / MANIFEST))
    except (OSError, ModelFileError):
        return [MANIFEST]
    return [name for name, file in expected.items() if sha256_of(folder / name) != file.sha256]


async def hub_answers(repo: str) -> None:
    """Check briefly that the hub answers: its library retries for half a minute, with warnings."""
    import httpx
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        raise SourceError(repo, "HF_HUB_OFFLINE is set")
    url = f"{ENDPOINT}/api/models/{repo}"
    try:
        async with httpx.AsyncClient(timeout=HUB_TIMEOUT_S, follow_redirects=True) as client:
            status = (await client.get(url)).status_code
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        problem = f"the model hub cannot be reached ({type(error).__name__})"
        raise SourceError(url, problem) from error
    if status >= 500 or status == 429:
        raise SourceError(url, f"the model hub answered {status}")


async def _listed(repo: str, revision: str) -> tuple[str, list[HubFile]]:
    """Return the current commit of a revision, and its files that a load may read."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        info: Any = await asyncio.to_thread(
            HfApi().model_info,
            repo, revision=revision or None, files_metadata=True, timeout=HUB_TIMEOUT_S,
        )  # fmt: skip
    except GatedRepoError:
        hint = f"Accept its terms at huggingface.co/{repo} and set HF_TOKEN."
        raise ModelNotFoundError(repo, "the hub asks for a login to read it", hint=hint) from None
    except RevisionNotFoundError:
        hint = f"Leave out @{revision} to take its newest commit."
        raise ModelNotFoundError(repo, f"it has no revision {revision!r}", hint=hint) from None
    except RepositoryNotFoundError:
        hint = "Check its spelling; a private model needs HF_TOKEN."
        raise ModelNotFoundError(repo, "the hub has no model of that id", hint=hint) from None
    except Exception as error:  # the library lets many kinds through
        problem = f"the model hub gives no list of its files ({type(error).__name__})"
        raise SourceError(repo, problem) from error
    siblings: list[Any] = info.siblings or []
    every = [HubFile(s.rfilename, s.size or 0, s.lfs.sha256 if s.lfs else "") for s in siblings]
    names = _chosen(repo, [file.name for file in every])
    return str(info.sha), [file for file in every if file.name in names]


def _chosen(repo: str, names: Iterable[str]) -> set[str]:
    """Choose the files that a load may read, with safetensors weights: one file, or its shards."""
    every = set(names)
    readable = {n for n in every if may_be_read(n) and not n.endswith(".gguf") and n != MANIFEST}
    if TOKENIZER in readable:
        readable -= OLD_TOKENIZER
    shards = {n for n in readable if n.endswith(".safetensors") and "/" not in n} - {_WHOLE}
    if _WHOLE in readable:
        return readable - shards - {INDEX}
    if INDEX in readable and shards:
        return readable
    others = sorted(name for name in every if name.endswith(_WEIGHTS))
    result = f"it has {', '.join(others[:3])}" if others else "it has no weights"
    raise UnsupportedModelError(
        repo,
        f"{result}, and no model.safetensors",
        hint="Use a model with safetensors weights; a .gguf file can be loaded by its URL.",
    )


async def fetch_file(repo: str, revision: str, file: HubFile, fresh: Path) -> None:
    """Fetch a file of a repository into a folder; SourceError, HashMismatchError."""
    from huggingface_hub import hf_hub_download

    try:
        await asyncio.to_thread(
            hf_hub_download,
            repo, file.name, revision=revision, local_dir=fresh, etag_timeout=HUB_TIMEOUT_S,
        )  # fmt: skip
    except Exception as error:  # the library lets many kinds through
        problem = f"the model hub does not give it ({type(error).__name__})"
        raise SourceError(f"{repo}/{file.name}", problem) from error
    if not file.sha256:
        return
    result = sha256_of(fresh / file.name)
    if result != file.sha256:
        promised = f"its SHA-256 is {result}, and the hub promised {file.sha256}"
        raise HashMismatchError(f"{repo}/{file.name}", promised)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file; "" if it cannot be read."""
    try:
        with open_regular(path) as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""


def _check_disk(repo: str, folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise SetupError(
            f"{repo} has {nbytes / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free.",
            hint="Make room, or set BASCULE_CACHE to a folder on another disk.",
        )


def _is_there(home: Path, repo: str, revision: str) -> bool:
    origin = _origin(home)
    asked = (origin.get("revision"), origin.get("commit"))
    return origin.get("repo") == repo and (not revision or revision in asked)


def _origin(folder: Path) -> Mapping[str, Any]:
    try:
        with open_regular(folder / ORIGIN) as handle:
            result: Any = json.loads(handle.read(1 << 16))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}
