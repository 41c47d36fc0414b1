"""Sequence classifiers on every native tier, compared with transformers in float64."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import bascule
from bascule import ClassifierModel, EmbeddingModel
from bascule.errors import InputError, ModelFileError, UnsupportedModelError
from tests.goldens.classifiers import (
    ANSWERS,
    CLASSIFIERS,
    MAX_TOKENS,
    PAIRS,
    QUERY,
    SINGLES,
    classifier_golden,
)
from tests.goldens.families import Case, build

BY_NAME = {case.name: case for case in CLASSIFIERS}
CROSS, NLI = "a cross-encoder of bert", "three labels of roberta"
SEVERAL = "several of four labels at once"
CLOSE = 2e-5  # of probabilities and scores; logits are a few times larger


async def load(place: Path, **options: Any) -> ClassifierModel:
    model = await bascule.load(place, **options)
    assert isinstance(model, ClassifierModel)
    return model


@pytest.fixture(params=("webgpu", "wasm", "cpu"))
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[bascule.Device]:
    """Each tier once a test; models share its device."""
    result = await bascule.open_device(request.param)
    yield result
    result.close()


async def test_logits_scores_and_probabilities_are_the_goldens(
    opened: bascule.Device, tmp_path: Path
) -> None:
    for case in CLASSIFIERS:
        golden = classifier_golden(case.name)
        async with await opened.load(build(case, tmp_path / case.name)) as model:
            assert isinstance(model, ClassifierModel)
            labels = tuple(case.config["id2label"].values())
            assert model.labels == labels
            assert f"{len(labels)} label" in repr(model)
            result = np.array(await model.logits([*SINGLES, *PAIRS]))
            expected = np.concatenate([golden["singles"], golden["pairs"]])
            assert np.abs(result - expected).max() < 1e-4 * np.abs(expected).max(), case.name
            classes = await model.classify(SINGLES)
            shares = [[row.probabilities[label] for label in labels] for row in classes]
            assert np.abs(np.array(shares) - golden["probabilities"]).max() < CLOSE
            for row in classes:
                assert row.probability == max(row.probabilities.values())
                assert row.probabilities[row.label] == row.probability
            if len(labels) == 1:
                ranking = await model.rank(QUERY, ANSWERS)
                scores = golden["scores"][: len(ANSWERS)]
                assert np.abs(np.array(ranking.scores) - scores).max() < 10 * CLOSE
                assert [each.index for each in ranking.best()] == list(
                    np.argsort(-scores, kind="stable")
                )


async def test_a_text_is_scored_alike_alone_and_among_others(tmp_path: Path) -> None:
    texts = [ANSWERS[i % len(ANSWERS)] for i in range(70)]
    async with await load(build(BY_NAME[CROSS], tmp_path / "m"), tier="cpu") as model:
        alone = [(await model.rank(QUERY, text)).scores[0] for text in ANSWERS]
        done: list[tuple[int, int]] = []
        many = await model.rank(
            QUERY, texts, batch_size=8, progress=lambda n, of: done.append((n, of))
        )
        assert done[-1] == (70, 70)
        assert model.stats["texts"] == 70 + len(ANSWERS)
    expected = [alone[i % len(ANSWERS)] for i in range(70)]
    assert np.abs(np.array(many.scores) - expected).max() < 1e-6
    best = many.best(3)
    assert [each.score for each in best] == sorted(many.scores, reverse=True)[:3]


async def test_pairs_are_cut_and_counted(tmp_path: Path) -> None:
    async with await load(build(BY_NAME[CROSS], tmp_path / "m"), tier="cpu") as model:
        assert model.max_tokens == MAX_TOKENS
        ranking = await model.rank(QUERY, ANSWERS)
        assert ranking.n_tokens == (7, 9, 11, 36, MAX_TOKENS, 6)
        assert ranking.truncated == (4,)
        whole = model.tokenizer.encode(ANSWERS[4])
        assert model.tokenizer.count(ANSWERS[4]) == len(whole) > MAX_TOKENS  # cut when it is joined
        assert len(model.tokenizer.encode(ANSWERS[4], special=False)) < len(whole)
        (cut,) = await model.classify([(ANSWERS[4], ANSWERS[3])])
        assert (cut.n_tokens, cut.truncated) == (MAX_TOKENS, True)
        with pytest.raises(InputError, match=r"rank, text 4.*at most 40 tokens.*66"):
            await model.rank(QUERY, ANSWERS, truncate=False)
        assert await model.classify([]) == []
        assert (await model.rank(QUERY, [])).best() == []


WRONG: list[tuple[str, tuple[Any, ...], str]] = [
    (NLI, ("rank", QUERY, ANSWERS), r"a model of one label.*3 \(contradiction, entailment, n"),
    (CROSS, ("rank", 3, ANSWERS), r"rank, query.*a string"),
    (CROSS, ("rank", "\ud800", ANSWERS), "UTF-8"),
    (CROSS, ("rank", QUERY, [1]), r"rank, texts\[0\]"),
    (CROSS, ("classify", [("a",)]), r"classify, texts\[0\].*a pair of strings"),
    (CROSS, ("classify", [("a", "b", "c")]), r"a pair of strings"),
    (CROSS, ("classify", [("a", None)]), r"a pair of strings"),
    (CROSS, ("classify", [("a", "\udc00")]), "UTF-8"),
    (CROSS, ("classify", {"a": "b"}), "a list of strings and pairs"),
    (CROSS, ("classify", 3), "a list of strings and pairs"),
]


@pytest.mark.parametrize(("name", "call", "words"), WRONG, ids=[str(row[1]) for row in WRONG])
async def test_what_is_no_text_and_no_pair(
    name: str, call: tuple[Any, ...], words: str, tmp_path: Path
) -> None:
    async with await load(build(BY_NAME[name], tmp_path / "m"), tier="cpu") as model:
        with pytest.raises(InputError, match=words):
            await getattr(model, call[0])(*call[1:])


def changed(case: Case, folder: Path, **changes: Any) -> Path:
    """A case's folder with another config.json."""
    build(case, folder)
    config = {**case.config, **changes}
    config = {key: value for key, value in config.items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


async def test_a_regression_has_numbers_and_no_classes(tmp_path: Path) -> None:
    folder = changed(BY_NAME[CROSS], tmp_path / "m", problem_type="regression")
    async with await load(folder, tier="cpu") as model:
        with pytest.raises(InputError, match=r"a regression.*logits\(texts\)"):
            await model.classify(SINGLES)
        golden = classifier_golden(CROSS)["singles"]
        assert np.abs(np.array(await model.logits(SINGLES)) - golden).max() < 1e-3
        assert len((await model.rank(QUERY, ANSWERS)).scores) == len(ANSWERS)


async def test_a_head_tells_a_classifier_where_no_architecture_does(tmp_path: Path) -> None:
    for case in CLASSIFIERS:
        folder = changed(case, tmp_path / case.name, architectures="absent")
        async with await load(folder, tier="cpu") as model:
            assert np.isfinite(await model.logits("w4")).all()


async def test_labels_have_transformers_names_where_the_config_has_none(tmp_path: Path) -> None:
    folder = changed(BY_NAME["two labels of distilbert"], tmp_path / "m", id2label="absent")
    async with await load(folder, tier="cpu") as model:
        assert model.labels == ("LABEL_0", "LABEL_1")


async def test_what_sentence_transformers_writes_beside_it_is_followed(tmp_path: Path) -> None:
    """The files of CrossEncoder.save_pretrained of version 6."""
    folder = build(BY_NAME[CROSS], tmp_path / "m")
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    library = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None}
    library["activation_fn"] = "torch.nn.modules.linear.Identity"
    text = {"method": "forward", "method_output_name": "logits"}
    sentence = {
        **{"transformer_task": "sequence-classification", "modality_config": {"text": text}},
        **{"module_output_name": "scores", "max_seq_length": 24},
    }

    def write(**changes: Any) -> None:
        for file, result in (
            ("modules.json", changes.get("modules", modules)),
            ("config_sentence_transformers.json", {**library, **changes.get("library", {})}),
            ("sentence_bert_config.json", {**sentence, **changes.get("sentence", {})}),
        ):
            (folder / file).write_text(json.dumps(result))

    write()
    async with await load(folder, tier="cpu") as model:
        assert model.max_tokens == 24
        (score,) = (await model.rank(QUERY, ANSWERS[0])).scores
        assert abs(score - classifier_golden(CROSS)["pairs"][0, 0]) < 1e-3
    for changes, words in (
        ({"modules": [*modules, {"type": "x.Dense", "path": "1_Dense"}]}, "'x.Dense'"),
        ({"library": {"model_type": "SparseEncoder"}}, "SparseEncoder"),
        ({"library": {"default_prompt_name": "q"}}, "follow the prompt 'q'"),
        ({"library": {"activation_fn": "torch.nn.modules.activation.Tanh"}}, "activation_fn"),
        ({"sentence": {"transformer_task": "fill-mask"}}, "transformer_task is fill-mask"),
    ):
        write(**changes)
        with pytest.raises(UnsupportedModelError, match=words):
            await bascule.load(folder, tier="cpu")


HOSTILE: list[tuple[dict[str, Any], str]] = [
    ({"id2label": []}, r"id2label is \[\]"),
    ({"id2label": {}}, r"id2label is \{\}"),
    ({"id2label": "x" * 9000}, "id2label is 'xxx"),
    ({"id2label": {"0": 3}}, "id2label has 3 for 0"),
    ({"id2label": {"0": None}}, "id2label has None for 0"),
    ({"id2label": {"1": "a"}}, "id2label has None for 0"),
    ({"id2label": {"0": "a", "1": "a"}}, "one name for two ids"),
    ({"id2label": {"0": "a", "1": "b" * 300}}, "id2label has 'bbb"),
    ({"id2label": {str(i): str(i) for i in range(70_000)}}, "expected 1 to 65,536 labels"),
    ({"id2label": {"0": "a", "1": "b"}}, r"classifier.weight' is \[1, 32\].* makes it \[2, 32\]"),
    ({"id2label": "absent", "num_labels": 1 << 60}, "num_labels is 1152921504606846976"),
    ({"num_labels": -1}, "num_labels is -1"),
    ({"num_labels": 2}, "num_labels is 2, and id2label has 1"),
    ({"problem_type": "guess"}, "problem_type is 'guess'"),
    ({"problem_type": [1]}, r"problem_type is \[1\]"),
    ({"sentence_transformers": 1}, "sentence_transformers is 1"),
    ({"sentence_transformers": {"activation_fn": "os.system"}}, "activation_fn is 'os.system'"),
    ({"sbert_ce_default_activation_function": "torch.nn.GELU"}, "activation_fn is 'torch.nn.GELU'"),
    ({"type_vocab_size": 1 << 40}, "type_vocab_size is 1099511627776"),
    ({"type_vocab_size": 3}, r"token_type_embeddings.weight' is \[2, 32\]"),
    ({"architectures": ["BertForTokenClassification"]}, "whose head is not run"),
    ({"architectures": ["BertModel"]}, "'classifier.bias', which this version does not run"),
]


@pytest.mark.parametrize(("changes", "words"), HOSTILE, ids=[str(row)[:60] for row in HOSTILE])
async def test_settings_that_cannot_be_are_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = changed(BY_NAME[CROSS], tmp_path / "m", **changes)
    with pytest.raises((ModelFileError, UnsupportedModelError), match=words) as caught:
        await bascule.load(folder, tier="cpu")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("case", CLASSIFIERS, ids=BY_NAME)
async def test_a_head_that_is_not_whole_is_refused(case: Case, tmp_path: Path) -> None:
    folder = build(case, tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    heads = [name for name in tensors if "classifier" in name or "pooler.dense" in name]
    heads = [n for n in heads if not (n.startswith("roberta.pooler") or n == "pooler.dense.bias")]
    for name in heads:
        if "pooler" in name and case.config["model_type"] != "bert":
            continue
        rest = {key: value for key, value in tensors.items() if key != name}
        save_file(rest, folder / "model.safetensors")
        with pytest.raises(
            ModelFileError, match=f"lacks the tensor '{name.removeprefix('bert.')}'"
        ):
            await bascule.load(folder, tier="cpu")


async def test_a_template_that_has_no_pair_serves_single_texts(tmp_path: Path) -> None:
    folder = build(BY_NAME["a cross-encoder of xlm-roberta"], tmp_path / "m")
    words = json.loads((folder / "tokenizer.json").read_text())
    words["post_processor"]["pair"] = [{"Sequence": {"id": "A", "type_id": 0}}]
    (folder / "tokenizer.json").write_text(json.dumps(words))
    async with await load(folder, tier="cpu") as model:
        assert len(await model.classify(SINGLES)) == len(SINGLES)
        with pytest.raises(InputError, match="how two texts go together"):
            await model.rank(QUERY, ANSWERS)


async def test_8_bits_leave_the_head_as_it_is(tmp_path: Path) -> None:
    golden = classifier_golden(NLI)["pairs"]
    async with await load(build(BY_NAME[NLI], tmp_path / "m"), tier="cpu", quantize=8) as model:
        result = np.array(await model.logits(PAIRS))
        assert model.quantization is not None
        types = {tensor.name: tensor.dtype for tensor in model.quantization.tensors}
    assert types["classifier.dense.weight"] == types["classifier.out_proj.weight"] == "f32"
    assert "q8_0" in types.values()
    assert np.abs(result - golden).max() < 0.1 * np.abs(golden).max()


async def test_a_classifier_embeds_no_texts(tmp_path: Path) -> None:
    folder = build(BY_NAME[CROSS], tmp_path / "m")
    async with await load(folder, tier="cpu") as model:
        assert not isinstance(model, EmbeddingModel)
    platform = bascule.UnifiedWebPlatform(str(folder), platform="cpu")
    with pytest.raises(UnsupportedModelError, match="it is a ClassifierModel"):
        await platform.load_model()
