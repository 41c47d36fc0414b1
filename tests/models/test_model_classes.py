"""Classes of models by their files: config.json, GGUF metadata, tensor shapes, names at last."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from bascule import ModelFamily, classify_model
from bascule.errors import InputError, ModelFileError
from bascule.models.classes import (
    CLASSES,
    class_of_config,
    class_of_metadata,
    class_of_name,
    class_of_shapes,
    examples_of,
)
from bascule.models.table import FAMILIES
from tests.goldens import HERE, TINY_BERT


def folder(place: Path, config: dict[str, Any] | None, shapes: dict[str, list[int]] | None) -> str:
    place.mkdir()
    if config is not None:
        (place / "config.json").write_text(json.dumps(config))
    if shapes is not None:
        header: dict[str, Any] = {}
        end = 0
        for name, shape in shapes.items():
            count = 1
            for n in shape:
                count *= n
            header[name] = {"dtype": "U8", "shape": shape, "data_offsets": [end, end + count]}
            end += count
        text = json.dumps(header).encode()
        data = struct.pack("<Q", len(text)) + text + bytes(end)
        (place / "model.safetensors").write_bytes(data)
    return str(place)


def test_each_family_that_runs_has_a_class() -> None:
    named = [name for each in CLASSES for name in examples_of(each)]
    assert sorted(named) == sorted(family.name for family in FAMILIES)
    for family in FAMILIES:
        for kind in family.model_types:
            result = class_of_config({"model_type": kind})
            assert result is not None
            assert family.name in examples_of(result)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llava"}, "multimodal"),
        ({"model_type": "new-thing", "text_config": {}, "vision_config": {}}, "multimodal"),
        ({"model_type": "wav2vec2"}, "audio"),
        ({"model_type": "swin"}, "vision"),
        ({"model_type": "mamba"}, "text_generation"),
        ({"model_type": "t5"}, "text_generation"),
        ({"model_type": "new-thing", "architectures": ["NewForCausalLM"]}, "text_generation"),
        ({"model_type": "new-thing", "architectures": ["NewForCTC"]}, "audio"),
        ({"architectures": ["NewForMaskedLM"]}, "embedding"),
        ({"model_type": 7, "architectures": [None, 3]}, None),
        ({"architectures": "NewForMaskedLM"}, None),
        ({}, None),
    ],
)
def test_a_config_shows_it(config: dict[str, Any], expected: str | None) -> None:
    assert class_of_config(config) == expected


def test_gguf_metadata_show_it() -> None:
    def of(kind: object, **more: object) -> str | None:
        return class_of_metadata({"general.architecture": kind, **more})

    assert of("some-new-decoder", **{"some-new-decoder.context_length": 8}) == "text_generation"
    assert of("nomic-bert", **{"nomic-bert.context_length": 8}) == "embedding"
    assert of("gemma-embedding", **{"gemma-embedding.pooling_type": 1}) == "embedding"
    assert of("whisper") == "audio"
    assert of("clip") == "multimodal"
    assert of("vae") is None
    assert of(3) is None


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        ({"patch.weight": (8, 3, 16, 16)}, "vision"),
        ({"patch.weight": (8, 3, 16, 16), "token_embedding.weight": (4000, 8)}, "multimodal"),
        ({"conv1.weight": (8, 80, 3)}, "audio"),
        ({"model.embed_tokens.weight": (4000, 8)}, "text_generation"),
        (
            {"x.word_embeddings.weight": (4000, 8), "x.token_type_embeddings.weight": (2, 8)},
            "embedding",
        ),
        ({"weight": (4000, 8)}, None),
    ],
)
def test_tensor_shapes_show_it(
    shapes: dict[str, tuple[int, ...]], expected: str | None, tmp_path: Path
) -> None:
    assert class_of_shapes(shapes) == expected
    plain = {name: list(shape) for name, shape in shapes.items()}
    result = classify_model(folder(tmp_path / "m", {"hidden": 8}, plain))
    assert result.family == expected
    assert result.family_source == ("tensor shapes" if expected else "")


def test_names_are_the_last_resort(tmp_path: Path) -> None:
    names = {
        "bert-base-uncased": "embedding",
        "all-mpnet-base-v3": "embedding",
        "google/vit-large": "vision",
        "openai/whisper-huge": "audio",
        "llava-7b": "multimodal",
        "openai/clip-vit-huge": "multimodal",
        "Llama-9-8B-Instruct": "text_generation",
        "activity": None,
        "quux": None,
    }
    assert {name: class_of_name(name) for name in names} == names
    result = classify_model("llava-7b")
    assert result == ModelFamily(
        "llava-7b", "multimodal", "name", None, "large", 7 * 10**9, None, "name"
    )
    assert classify_model("quux") == ModelFamily("quux", None, "")
    # Files outrank names.
    output = classify_model(folder(tmp_path / "whisper-7b", {"model_type": "vit"}, {"w": [2, 3]}))
    assert (output.family, output.family_source, output.model_type) == (
        "vision",
        "config.json",
        "vit",
    )
    assert (output.n_parameters, output.nbytes, output.size) == (6, 6, "small")
    assert output.size_source == "tensor shapes"


def test_real_files() -> None:
    bert = classify_model(TINY_BERT)
    assert (bert.family, bert.family_source, bert.size) == ("embedding", "config.json", "small")
    assert bert.n_parameters * 4 == bert.nbytes
    llama = classify_model(HERE / "tiny-llama" / "tiny-k.gguf")
    assert (llama.family, llama.family_source) == ("text_generation", "GGUF metadata")
    assert llama.nbytes < llama.n_parameters
    assert llama.as_json()["size"] == "small"


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="classify_model"):
        classify_model(" ")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    with pytest.raises(ModelFileError):
        classify_model(broken)


async def test_where_a_loop_runs_it_is_awaited() -> None:
    assert (await classify_model(TINY_BERT)).family == "embedding"
