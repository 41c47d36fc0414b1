"""get_memory_usage of each kind of model: the kinds of memory make up what the driver counted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from tests.goldens import t5
from tests.goldens.image_text import build_clip
from tests.goldens.vision import build_vit, pictures
from tests.speech_folders import hugging_face

SOUND = np.random.default_rng(5).uniform(-0.3, 0.3, 12_000).astype(np.float32)
# The class of a model, how its folder is built, what it is asked, and whether it has a KV cache.
KINDS: dict[str, tuple[Callable[[Path], Any], dict[str, Any], bool]] = {
    "audio": (hugging_face, {"audio": SOUND, "temperatures": (0,)}, True),
    "vision": (build_vit, {"image": pictures()[0]}, False),
    "multimodal": (build_clip, {"image": pictures()[0], "input_text": "a cat"}, False),
    "text_to_text": (
        lambda folder: t5.build("t5", folder),
        {"input_text": "a cat", "max_new_tokens": 3},
        True,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_kinds_of_memory_add_up(tmp_path: Path, kind: str) -> None:
    build, asked, caches = KINDS[kind]
    build(tmp_path / "m")
    platform = bascule.UnifiedWebPlatform(str(tmp_path / "m"), model_type=kind, platform="webgpu")
    await platform.run_inference(asked)
    assert platform.model is not None
    usage = platform.get_memory_usage()
    count = platform.model.backend.memory
    assert (usage.pop("now"), usage.pop("peak")) == (count.now_nbytes, count.peak_nbytes)
    assert sum(usage.values()) == count.now_nbytes <= count.peak_nbytes
    tables = usage["weights"] - platform.model.weights.nbytes
    assert (tables > 0) == (kind == "audio")  # the spectrum's, on the device as weights are
    assert usage["activations"] > 0
    assert (usage["cache"] > 0) == caches
    platform.close()
    assert set(platform.get_memory_usage().values()) == {0}
