"""Folders that cannot be loaded: the error says what is missing, what runs, how to convert."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule.device.loading import read_programs
from bascule.errors import (
    FileMissingError,
    HashMismatchError,
    ModelFileError,
    UnsupportedModelError,
)
from bascule.models.table import family_of_config
from bascule.program.graph import Graph
from bascule.tasks import registry
from bascule.tasks.embedder import EmbedderSettings
from bascule.weights.early_read import EarlyRead
from bascule.weights.location import open_source
from tests.goldens import HERE, TINY_BERT

TINY_GGUF = HERE / "tiny-llama" / "tiny-q4_1.gguf"


def copied(tmp_path: Path, **changes: Any) -> Path:
    folder = tmp_path / "m"
    shutil.copytree(TINY_BERT, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize(
    ("gone", "there", "words"),
    [
        ("model.safetensors", "pytorch_model.bin", "pytorch_model.bin alone.*save_pretrained"),
        ("model.safetensors", "onnx/model.onnx", "onnx/model.onnx alone.*save_pretrained"),
        ("tokenizer.json", "vocab.txt", "vocab.txt alone.*AutoTokenizer.*save_pretrained"),
        ("tokenizer.json", "tokenizer.model", "tokenizer.model alone.*AutoTokenizer"),
    ],
)
async def test_a_folder_in_another_format_says_how_to_convert_it(
    tmp_path: Path, gone: str, there: str, words: str
) -> None:
    folder = copied(tmp_path)
    (folder / gone).unlink()
    (folder / there).parent.mkdir(exist_ok=True)
    (folder / there).write_bytes(b"?")
    with pytest.raises(UnsupportedModelError, match=words) as refusal:
        await bascule.load(folder, tier="cpu")
    assert "connection" not in str(refusal.value)


@pytest.mark.parametrize("gone", ["config.json", "model.safetensors", "tokenizer.json"])
async def test_a_missing_file_is_named(tmp_path: Path, gone: str) -> None:
    folder = copied(tmp_path)
    (folder / gone).unlink()
    with pytest.raises(FileMissingError, match=f"{gone}.*config.json, tokenizer.json and model"):
        await bascule.load(folder, tier="cpu")


async def test_a_gguf_file_of_another_name_is_pointed_at(tmp_path: Path) -> None:
    shutil.copy(TINY_GGUF, tmp_path / "tiny.gguf")
    with pytest.raises(FileMissingError, match=r"Load the file itself: .*tiny\.gguf"):
        await bascule.load(tmp_path, tier="cpu")


async def test_a_folder_of_a_gguf_file_alone_leaves_no_failed_task(tmp_path: Path) -> None:
    shutil.copy(TINY_GGUF, tmp_path / "model.gguf")
    stray: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: stray.append(context))
    before = asyncio.all_tasks()
    async with await bascule.load(tmp_path, tier="cpu"):
        pass
    assert asyncio.all_tasks() == before
    assert not stray


async def test_a_file_read_early_fails_only_where_it_is_awaited(tmp_path: Path) -> None:
    early = EarlyRead(open_source(str(tmp_path)), "tokenizer.json")
    await asyncio.wait([early._task])
    assert early._task.exception() is None
    with pytest.raises(FileMissingError, match=r"tokenizer\.json"):
        await early
    await early.stop()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ("bloom", r"text generation.* llama \(such as SmolLM2"),
        ("electra", r"sentence encoders.* bert \(such as all-MiniLM-L6-v2"),
        ("bart", r"text to text.* t5 \(such as t5-small"),
        ("wav2vec2", "speech.*these run: whisper"),
        ("swin", r"images.*these run: vit \(such as vit-base"),
        ("something-new", "llama.*bert"),
        (None, "it has no model_type.*llama.*bert"),
        (["bert"], "llama.*bert"),
    ],
)
def test_another_kind_of_model_hears_what_runs(found: object, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        family_of_config({"model_type": found}, "config.json")


async def test_another_gguf_architecture_hears_what_runs(tmp_path: Path) -> None:
    data, key = TINY_GGUF.read_bytes(), b"general.architecture"
    at = data.index(key) + len(key) + 4 + 8  # the value's type and length
    (tmp_path / "m.gguf").write_bytes(data[:at] + b"bloom" + data[at + 5 :])
    with pytest.raises(UnsupportedModelError, match=r"architecture is 'bloom'.*these run: llama"):
        await bascule.load(tmp_path / "m.gguf", tier="cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": ["gelu"]},
        {"hidden_act": {"gelu": 1}},
        {"hidden_act": None},
        {"architectures": "BertModel"},
        {"architectures": [3]},
        {"hidden_size": 10**290},
        {"hidden_size": [35]},
        {"num_hidden_layers": {"n": 2}},
        {"layer_norm_eps": 10**290},
        {"layer_norm_eps": -(10**290)},
        {"layer_norm_eps": [1e-6]},
        {"layer_norm_eps": float("nan")},
        {"max_position_embeddings": 10**290},
    ],
    ids=str,
)
async def test_settings_of_other_types_are_model_file_errors(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with pytest.raises(ModelFileError, match=r"config\.json"):
        await bascule.load(copied(tmp_path, **changes), tier="cpu")


@pytest.mark.parametrize("digits", [400, 5000])
async def test_whole_numbers_of_hundreds_of_digits(tmp_path: Path, digits: int) -> None:
    folder = copied(tmp_path)
    text = (folder / "config.json").read_text()
    text = text.replace('"vocab_size": 99', f'"vocab_size": {"9" * digits}')
    (folder / "config.json").write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.json"):
        await bascule.load(folder, tier="cpu")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("modules.json", {"0": "Transformer"}),
        ("modules.json", ["Transformer"]),
        ("modules.json", [{"type": 3, "path": ""}]),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": "../x"}]),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": "a/b"}]),
        ("modules.json", [{"type": "t", "path": ""}] * 33),
        ("1_Pooling/config.json", []),
        ("1_Pooling/config.json", {"pooling_mode": []}),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": 1}),
        ("1_Pooling/config.json", {"include_prompt": "no"}),
        ("sentence_bert_config.json", {"max_seq_length": "long"}),
        ("sentence_bert_config.json", {"max_seq_length": [9]}),
        ("sentence_bert_config.json", {"max_seq_length": 2}),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}),
        ("tokenizer_config.json", {"model_max_length": {}}),
        ("tokenizer_config.json", {"model_max_length": -1}),
        ("tokenizer_config.json", {"model_max_length": float("nan")}),
        ("config_sentence_transformers.json", {"prompts": ["a"]}),
        ("config_sentence_transformers.json", {"prompts": {"a": 3}}),
        ("config_sentence_transformers.json", {"default_prompt_name": ["query"]}),
        ("config_sentence_transformers.json", {"truncate_dim": 0}),
        ("config_sentence_transformers.json", {"truncate_dim": "all"}),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_unsound_files_of_sentence_transformers(
    tmp_path: Path, file: str, content: Any
) -> None:
    folder = copied(tmp_path)
    (folder / "1_Pooling").mkdir()
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    listed = [{"type": f"sentence_transformers.models.{n}", "path": p} for n, p in modules]
    files = {"modules.json": listed, "1_Pooling/config.json": {}, file: content}
    for name, result in files.items():
        (folder / name).write_text(json.dumps(result))
    with pytest.raises(ModelFileError):
        await bascule.load(folder, tier="cpu")


async def test_a_thousand_layers_are_compared_with_the_header_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    monkeypatch.setattr(EmbedderSettings, "program", lambda *_: made.append("program"))
    monkeypatch.setattr(Graph, "call", lambda *_, **__: made.append("call"))
    with pytest.raises(ModelFileError, match=r"encoder\.layer\.2\."):
        await read_programs(copied(tmp_path, num_hidden_layers=1000))
    assert not made


async def test_a_thousand_blocks_are_compared_with_the_header_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, key = TINY_GGUF.read_bytes(), b"llama.block_count"
    at = data.index(key) + len(key) + 4  # the value's type
    (tmp_path / "m.gguf").write_bytes(data[:at] + (1000).to_bytes(4, "little") + data[at + 4 :])
    made: list[str] = []
    monkeypatch.setattr(Graph, "call", lambda *_, **__: made.append("call"))
    with pytest.raises(ModelFileError, match=r"it lacks the tensor 'blk\.\d+\."):
        await read_programs(tmp_path / "m.gguf")
    assert not made


async def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = copied(tmp_path, vocab_size=90)
    tensors = load_file(folder / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file({**tensors, name: tensors[name][:90].copy()}, folder / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"99 tokens.*90 embeddings"):
        await bascule.load(folder, tier="cpu")


async def test_only_a_known_model_is_to_be_pulled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tmp_path, hidden_size=-1)
    with pytest.raises(ModelFileError) as own:
        await bascule.load(folder, tier="cpu")
    assert "pull" not in str(own.value)
    model = registry.KnownModel("tiny", "sentence-encoder", "", {"config.json": "0" * 64})
    monkeypatch.setattr(registry, "KNOWN", {"tiny": model})
    monkeypatch.setattr("bascule.device.loading.locate", lambda _: str(folder))
    with pytest.raises(HashMismatchError, match="bascule pull --force tiny") as known:
        await bascule.load("tiny", tier="cpu")
    assert known.value.hint in str(known.value)
