"""`bascule convert`: a CTranslate2 folder of Whisper becomes a Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import bascule
from tests import speech_folders as folders
from tests.cli.running import run


def converted(source: Path, target: Path) -> Path:
    result = run("convert", str(source), str(target))
    assert (result.returncode, result.stdout) == (0, f"{target}\n"), result.stderr
    return target


async def test_the_new_folder_says_what_the_old_one_does(tmp_path: Path) -> None:
    old = folders.ctranslate2(tmp_path / "old")
    original = load_file(folders.hugging_face(tmp_path / "original") / "model.safetensors")
    new = converted(old, tmp_path / "new")
    result = load_file(new / "model.safetensors")
    assert result.keys() == original.keys()
    for name, numbers in result.items():
        np.testing.assert_array_equal(numbers, original[name], err_msg=name)
    samples = np.random.default_rng(8).uniform(-0.4, 0.4, 30_000).astype(np.float32)
    said = []
    for folder in (old, new):
        async with await bascule.load(folder, tier="cpu") as model:
            assert isinstance(model, bascule.SpeechModel)
            said.append(await model.transcribe(samples, temperatures=[0.0]))
    assert said[0].text
    assert said[0].formatted("json") == said[1].formatted("json")


async def test_tiny_en_keeps_its_settings(tmp_path: Path) -> None:
    new = converted(Path("whisper-tiny.en"), tmp_path / "new")
    config = json.loads((new / "config.json").read_text())
    generation = json.loads((new / "generation_config.json").read_text())
    assert config["torch_dtype"] == "float16"
    assert (config["eos_token_id"], config["decoder_start_token_id"]) == (50256, 50257)
    assert generation["no_timestamps_token_id"] == 50362
    assert generation["is_multilingual"] is False
    assert [1, 0] in generation["alignment_heads"]
    assert generation["begin_suppress_tokens"] == [220, 50256]


def test_what_is_not_converted(tmp_path: Path) -> None:
    old, new = folders.ctranslate2(tmp_path / "old"), tmp_path / "new"
    again = run("convert", str(folders.hugging_face(tmp_path / "hf")), str(new))
    assert (again.returncode, again.stdout) == (1, "")
    assert "It loads as it is." in again.stderr
    taken = run("convert", str(old), str(old))
    assert taken.returncode == 1
    assert "Remove it first" in taken.stderr
    gguf = run("convert", "SmolLM2-135M-Instruct", str(new))
    assert gguf.returncode == 1
    assert "GGUF files load as they are." in gguf.stderr
    (tmp_path / "file").write_text("")
    blocked = run("convert", str(old), str(tmp_path / "file" / "new"))
    assert blocked.returncode == 1
    assert "cannot be written" in blocked.stderr
    assert not new.exists()


@pytest.mark.parametrize("kept", [100, 20_000, -1])
def test_a_cut_file_leaves_nothing_behind(tmp_path: Path, kept: int) -> None:
    old = folders.ctranslate2(tmp_path / "old")
    data = (old / "model.bin").read_bytes()
    (old / "model.bin").write_bytes(data[:kept])
    result = run("convert", str(old), str(tmp_path / "new"))
    assert result.returncode == 1
    assert "it ends after" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
