"""Speech and text-to-text models behind the platform's one method: the models' own answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import bascule
from bascule.errors import InputError
from tests.goldens.t5 import build as build_t5
from tests.speech_folders import hugging_face


async def test_speech(tmp_path: Path, rng: np.random.Generator) -> None:
    folder = str(hugging_face(tmp_path / "m"))
    sound = rng.uniform(-0.3, 0.3, 12_000).astype(np.float32)
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, bascule.SpeechModel)
        said = await model.transcribe(sound, language="de", temperatures=(0,))
    platform = bascule.UnifiedWebPlatform(folder, model_type="audio", platform="cpu")
    result = await platform.run_inference({"audio": sound, "language": "de", "temperatures": (0,)})
    assert (result["text"], result["language"], result["tier"]) == (said.text, "de", "cpu")
    assert len(result["segments"]) == len(said.segments)
    with pytest.raises(InputError, match="'audio'"):
        await platform.run_inference({"input_text": "w1"})
    platform.close()


async def test_text_to_text(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    build_t5("t5", folder)
    async with await bascule.load(folder, tier="cpu") as model:
        assert isinstance(model, bascule.TextToTextModel)
        expected = await model.generate("a cat", max_new_tokens=5)
    platform = bascule.UnifiedWebPlatform(str(folder), model_type="text_to_text", platform="cpu")
    result = await platform.run_inference({"input_text": "a cat", "max_new_tokens": 5})
    assert result["ids"] == expected.ids != []
    assert result["text"] == expected.text
    platform.close()
