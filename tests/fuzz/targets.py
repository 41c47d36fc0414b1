"""What is fuzzed: for each target, how a case is written and what is done with it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import bascule
from bascule.backend import base as backend
from bascule.backend.webgpu.choices import Choices
from bascule.backend.webgpu.choices import machine_key as adapter_key
from bascule.base.remembered import FolderRemembered
from bascule.choosing.speed_records import speed_key, speed_record
from bascule.choosing.speeds import KINDS
from bascule.choosing.tier_records import TierRecords
from bascule.compat.history import History
from bascule.machine.machine_key import machine_key
from bascule.weights.manifest import write_manifest
from bascule.weights.names import MANIFEST
from tests.fuzz.gguf_mutations import mutated_file
from tests.fuzz.json_mutations import damaged, mutated, written
from tests.goldens import TINY_BERT
from tests.goldens.llama import tiny, tiny_folder
from tests.goldens.module_folders import RIGHT, build

Make = Callable[[Path, Random], None]

POOLING = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
MODULES = [
    {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{name}"}
    for n, (path, name) in enumerate(
        (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    )
]
SPEEDS = {
    "speeds": {"product": [[32768, 1e-4, 5e-5], [2097152, 2e-3, 1e-3]], "pass": [[1, 1, 1]]},
    "factors": {"product small": 2.0},
    "contradictions": [[1.0, "product small", 4.0], [9.0, "product small", 4.0]],
    "again": False,
    "checked": True,
}
LEARNED = {"evidence": [["embed", 3, {"cpu": [0.1, 0.2], "webgpu": [0.5] * 6}]]}
TUNED = {"chosen": "tiled", "times": {"tiled": {"digest": "d", "ms": 0.5}}}
FAILED = {"variant": "tiled", "label": "x.wgsl", "messages": [[1, "no"]], "wrong": True}
CHOICES = {"failed": {"d": FAILED}, "tuned": {"linear": TUNED}, "proven": ["a", "b"]}
TIERS = {
    "webgpu": {"refused": "no adapter", "at": 1.0},
    "cpu": {"refused": "", "device": "d", "software": False, "identity": "i"},
    "wasm": {"refused": "", "device": "", "software": True, "identity": "", "largest_nbytes": 9},
}
ADAPTER: Any = SimpleNamespace(identity="fuzzed", vendor="v", architecture="a", device="d")


def _bert(folder: Path) -> None:
    shutil.copytree(TINY_BERT, folder, copy_function=shutil.copyfile)
    for name, result in (("1_Pooling/config.json", POOLING), ("modules.json", MODULES)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(result))
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 16}')


def _llama(folder: Path) -> None:
    shutil.copytree(tiny_folder().path, folder, copy_function=shutil.copyfile)
    result = json.loads((folder / "config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0]}))
    result.setdefault("rope_scaling", None)
    (folder / "config.json").write_text(json.dumps(result))


def _mutate_file(path: Path, rng: Random) -> None:
    path.write_bytes(written(mutated(json.loads(path.read_text()), rng), rng))


def config(folder: Path, rng: Random) -> None:
    """config.json and its like, of an encoder and of a language model."""
    names = ["config.json"] * 6
    if rng.random() < 0.5:
        _bert(folder)
        names += ["1_Pooling/config.json", "modules.json", "sentence_bert_config.json"]
    else:
        _llama(folder)
        names += ["generation_config.json", "tokenizer_config.json", "tokenizer_config.json"]
    _mutate_file(folder / rng.choice(names), rng)


def modules(folder: Path, rng: Random) -> None:
    """The files of sentence-transformers beside config.json: modules, prompts, lengths."""
    build(rng.choice([case for case in RIGHT if case.modules is not None]), folder)
    names = [p for p in sorted(folder.rglob("*.json")) if p.name != "tokenizer.json"]
    _mutate_file(rng.choice(names), rng)


def tokenizer(folder: Path, rng: Random) -> None:
    """tokenizer.json of several kinds of encoders, and of a language model."""
    from tests.text.test_encoder_tokenizer import KINDS

    if rng.random() < 0.3:
        _llama(folder)
    else:
        _bert(folder)
        if rng.random() < 0.8:
            result = rng.choice(list(KINDS.values()))()
            (folder / "tokenizer.json").write_text(json.dumps(result))
    _mutate_file(folder / "tokenizer.json", rng)


def safetensors(folder: Path, rng: Random) -> None:
    """The header of model.safetensors, its length, and what follows."""
    (_bert if rng.random() < 0.7 else _llama)(folder)
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (nbytes,) = struct.unpack("<Q", data[:8])
    head, rest = data[8 : 8 + nbytes], data[8 + nbytes :]
    if rng.random() < 0.8:
        head = written(mutated(json.loads(head), rng), rng)
    else:
        head = damaged(head, rng)
    nbytes = len(head)
    if rng.random() < 0.1:
        nbytes = rng.choice((0, 1, 2, nbytes - 1, nbytes + 1, 10**8, 2**40, 2**64 - 1))
    path.write_bytes(struct.pack("<Q", nbytes) + head + rest[: rng.choice((None, None, -1, 0))])


def gguf(folder: Path, rng: Random) -> None:
    """The header of a GGUF file."""
    folder.mkdir()
    (folder / "model.gguf").write_bytes(mutated_file(tiny("tiny-q4_1").path.read_bytes(), rng))


def manifest(folder: Path, rng: Random) -> None:
    """bascule-manifest.json beside a model."""
    _bert(folder)
    asyncio.run(write_manifest(folder, rng.choice((0.0625, 4)), lambda _: None))
    _mutate_file(folder / MANIFEST, rng)


def entries() -> dict[str, dict[str, Any]]:
    """What is remembered, by the keys under which this machine looks for it."""
    return {
        speed_key("cpu", "fuzzed"): SPEEDS,
        "learned": LEARNED,
        f"choices {adapter_key(ADAPTER)}": CHOICES,
        f"tiers {machine_key()}": {"tiers": TIERS},
    }


def remembered(folder: Path, rng: Random) -> None:
    """What was learned about the machine."""
    memory = folder / "remembered"
    for key, entry in entries().items():
        asyncio.run(FolderRemembered(memory).put(key, entry))
    for path in memory.glob("*.json"):
        if rng.random() < 0.7:
            _mutate_file(path, rng)
    _bert(folder / "model")


TARGETS: dict[str, Make] = {
    f.__name__: f for f in (config, modules, tokenizer, safetensors, gguf, manifest, remembered)
}


async def use(target: str, folder: Path) -> None:
    """Do with a case what a user would; anything but BasculeError is a finding."""
    warnings.simplefilter("ignore")
    os.environ["BASCULE_REMEMBERED"] = str(folder / "remembered")
    if target == "remembered":
        await _recall(FolderRemembered(folder / "remembered"))
        return
    try:
        where = folder / "model.gguf" if target == "gguf" else folder
        async with await bascule.load(where, tier="cpu") as model:
            if isinstance(model, bascule.LanguageModel):
                await model.generate("w1 a", max_new_tokens=2)
                if model.can_chat:
                    await model.chat([{"role": "user", "content": "a"}], max_new_tokens=2)
            else:
                await model.embed(["w9 ab é", "", "[SEP] a"])
    except bascule.BasculeError:
        pass


async def _recall(store: FolderRemembered) -> None:
    """No error at all is allowed: what is damaged is missing."""
    record = await speed_record("cpu", "fuzzed", store)
    if record is not None:
        for work in (1, 10**6, 10**15):
            for kind in KINDS:
                _ = [record.speeds.seconds(kind, work, again=again) for again in (False, True)]
                record.speeds.pass_seconds(kind, work, 3)
        for at in (10.0, 20.0, 30.0):
            record = record.contradicted(at, "product small", 9.0)
        json.dumps(record.as_json(), allow_nan=False)
    history = History()
    history.take(await store.get("learned"))
    for row in history.as_json()["evidence"]:
        _ = [each.typical_s for each in history.evidence((row[0], row[1])).values()]
    tiers = await TierRecords.open(store)
    for tier in backend.TIERS:
        facts = tiers.get(tier)
        if facts is not None:
            json.dumps(facts.as_json(), allow_nan=False)
            tiers.put(facts)
    await tiers.save()
    choices = await Choices.open(store, ADAPTER)
    choices.note_proven(["c"])
    await choices.save()
