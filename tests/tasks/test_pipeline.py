"""`bascule.pipeline`: each task on a tiny model, with Hugging Face's inputs and outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bascule
from bascule.errors import InputError, ModelNotFoundError
from bascule.pipelines.pipeline import Pipeline
from bascule.pipelines.table import OTHER_NAMES, TASKS
from tests import speech_folders
from tests.goldens import TINY_BERT, golden, t5
from tests.goldens.classifiers import ANSWERS, CLASSIFIERS, PAIRS, QUERY, SINGLES, classifier_golden
from tests.goldens.families import build
from tests.goldens.image_text import LABELS, TEMPLATE, build_clip
from tests.goldens.llama import tiny
from tests.goldens.vision import build_vit, pictures

LLAMA = tiny("tiny-q4_1").path
NOISE = np.random.default_rng(3).uniform(-0.5, 0.5, 20_000).astype(np.float32)
GREEDY: dict[str, Any] = {"temperature": 0, "max_new_tokens": 4}


async def opened(task: str, model: Path) -> Pipeline:
    return await bascule.pipeline(task, model, tier="cpu")


def classifier(name: str, folder: Path) -> Path:
    return build(next(case for case in CLASSIFIERS if case.name == name), folder / "model")


async def test_features_are_lists_of_a_texts_embedding() -> None:
    expected = golden("tiny-bert")
    texts = expected.texts[:3]
    async with await opened("feature-extraction", TINY_BERT) as pipe:
        result = await pipe(texts, batch_size=2)
        assert np.allclose(result, expected.embeddings[:3], atol=1e-5)
        assert np.allclose(await pipe(texts[0]), result[0], atol=1e-6)
        assert isinstance(result[0][0], float)
    with pytest.raises(InputError, match="closed"):
        await pipe("w4")


async def test_similarities_are_cosines() -> None:
    async with await opened("sentence-similarity", TINY_BERT) as pipe:
        asked = {"source_sentence": "w4 w5", "sentences": ["w4 w5", "w6", "w7 w8"]}
        result = await pipe(asked)
        assert isinstance(pipe.model, bascule.EmbeddingModel)
        first, *rows = np.asarray(await pipe.model.embed(["w4 w5", *asked["sentences"]]))
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(first)
        assert np.allclose(result, (rows @ first) / lengths, atol=1e-6)
        assert result[0] == pytest.approx(1)
        for wrong in ("w4", {"source_sentence": "w4"}, {**asked, "source_sentence": ["w4"]}):
            with pytest.raises(InputError, match="source_sentence"):
                await pipe(wrong)


async def test_texts_and_chats_go_on() -> None:
    async with await opened("text-generation", LLAMA) as pipe:
        assert isinstance(pipe.model, bascule.LanguageModel)
        said = (await pipe.model.generate("Hi", **GREEDY)).text
        assert said
        assert await pipe("Hi", **GREEDY) == [{"generated_text": "Hi" + said}]
        alone = await pipe(["Hi", "Once"], return_full_text=False, **GREEDY)
        assert alone[0] == [{"generated_text": said}]
        assert len(alone) == 2
        chat = [{"role": "user", "content": "Hi"}]
        answer = {"role": "assistant", "content": (await pipe.model.chat(chat, **GREEDY)).text}
        assert await pipe(chat, **GREEDY) == [{"generated_text": [*chat, answer]}]
        many = await pipe([chat], return_full_text=False, **GREEDY)
        assert many == [[{"generated_text": answer["content"]}]]
        for wrong in (7, {"role": "user"}, ["Hi", 7]):
            with pytest.raises(InputError, match=r"text-generation.*messages"):
                await pipe(wrong)
        with pytest.raises(InputError, match="return_full_text: expected True or False"):
            await pipe("Hi", return_full_text="no")


async def test_texts_become_others(tmp_path: Path) -> None:
    async with await opened("text2text-generation", t5.build("t5", tmp_path / "t5")) as pipe:
        assert isinstance(pipe.model, bascule.TextToTextModel)
        texts = list(t5.TEXTS[:2])
        said = [each.text for each in await pipe.model.generate(texts, max_new_tokens=5)]
        assert await pipe(texts, max_new_tokens=5) == [{"generated_text": text} for text in said]
        assert await pipe(texts[0], max_new_tokens=5) == [{"generated_text": said[0]}]


async def test_labels_of_texts_and_pairs(tmp_path: Path) -> None:
    name = "three labels of roberta"
    labels = ("contradiction", "entailment", "neutral")

    def softmax(logits: Any) -> Any:
        shares = np.exp(logits - logits.max())
        return shares / shares.sum()

    logits = classifier_golden(name)
    shares, pair = softmax(logits["singles"][0]), softmax(logits["pairs"][1])
    best = labels[int(shares.argmax())]
    async with await opened("text-classification", classifier(name, tmp_path)) as pipe:
        (result,) = await pipe(SINGLES[0])
        assert result == {"label": best, "score": pytest.approx(float(shares.max()), abs=2e-5)}
        assert (await pipe(list(SINGLES)))[0] == pytest.approx(result)
        assert len(await pipe(list(SINGLES))) == len(SINGLES)
        every = await pipe(SINGLES[0], top_k=None)
        assert [each["score"] for each in every] == pytest.approx(sorted(shares)[::-1], abs=2e-5)
        assert [len(each) for each in await pipe(SINGLES[:2], top_k=2)] == [2, 2]
        both = await pipe({"text": PAIRS[1][0], "text_pair": PAIRS[1][1]})
        assert both["label"] == labels[int(pair.argmax())]
        assert both["score"] == pytest.approx(float(pair.max()), abs=2e-5)
        with pytest.raises(InputError, match="text_pair"):
            await pipe([{"text": "w4"}])


async def test_texts_by_how_well_they_answer(tmp_path: Path) -> None:
    name = "a cross-encoder of bert"
    scores = classifier_golden(name)["scores"][: len(ANSWERS)]
    asked = {"query": QUERY, "texts": list(ANSWERS)}
    async with await opened("reranking", classifier(name, tmp_path)) as pipe:
        result = await pipe(asked)
        assert [each["index"] for each in result] == list(np.argsort(-scores))
        assert [each["score"] for each in result] == pytest.approx(sorted(scores)[::-1], abs=2e-5)
        (top,) = await pipe(asked, top_k=1, return_text=True)
        assert top == {**result[0], "text": ANSWERS[int(scores.argmax())]}
        with pytest.raises(InputError, match="query"):
            await pipe([QUERY, ANSWERS[0]])


async def test_recordings_become_text(tmp_path: Path) -> None:
    folder = speech_folders.hugging_face(tmp_path / "tiny", multilingual=False)
    async with await opened("automatic-speech-recognition", folder) as pipe:
        assert isinstance(pipe.model, bascule.SpeechModel)
        said = await pipe.model.transcribe(NOISE, temperatures=0)
        assert said.segments
        assert await pipe(NOISE, temperatures=0) == {"text": said.text}
        chunks = [{"timestamp": (s.start, s.end), "text": s.text} for s in said.segments]
        whole = {"text": said.text, "chunks": chunks}
        slower = {"raw": NOISE[::2], "sampling_rate": 8_000}
        result = await pipe([NOISE, slower], return_timestamps=True, temperatures=0)
        again = await pipe.model.transcribe(NOISE[::2], sample_rate=8_000, temperatures=0)
        assert result[0] == whole
        assert result[1]["text"] == again.text
        for wrong in ({"raw": NOISE}, {**slower, "path": "x"}):
            with pytest.raises(InputError, match="sampling_rate"):
                await pipe(wrong)
        with pytest.raises(InputError, match="sample_rate"):
            await pipe(slower, sample_rate=8_000)
        with pytest.raises(InputError, match="return_timestamps"):
            await pipe(NOISE, return_timestamps="char")
        words = (await pipe(NOISE, return_timestamps="word", temperatures=0))["chunks"]
        timed = await pipe.model.transcribe(NOISE, temperatures=0, word_timestamps=True)
        assert words == [
            {"timestamp": (word.start, word.end), "text": word.text}
            for segment in timed.segments
            for word in segment.words
        ]
        assert len(words) > 1


async def test_images_become_labels_and_features(tmp_path: Path) -> None:
    folder, images = build_vit(tmp_path / "vit"), pictures()[:2]
    async with await opened("image-classification", folder) as pipe:
        assert isinstance(pipe.model, bascule.ImageModel)
        known = (await pipe.model.classify(images[0], top_k=2))[0].probabilities
        result = await pipe(images, top_k=2)
        assert result[0] == [
            {"label": k, "score": pytest.approx(v, abs=1e-6)} for k, v in known.items()
        ]
        assert len(await pipe(images[1])) == 5
        assert len(result) == 2
    async with await opened("image-feature-extraction", folder) as pipe:
        assert isinstance(pipe.model, bascule.ImageModel)
        rows = await pipe.model.embed(images, pooling="mean")
        assert np.allclose(await pipe(images, pooling="mean"), rows, atol=1e-5)
        assert np.shape(await pipe(images[0])) == (pipe.model.dimension,)


def same(a: Any, b: Any) -> bool:
    """Labels in one order, with scores that differ by rounding alone."""
    labels = [each["label"] for each in a] == [each["label"] for each in b]
    return labels and np.allclose([e["score"] for e in a], [e["score"] for e in b], atol=1e-5)


async def test_images_are_classified_among_given_labels(tmp_path: Path) -> None:
    folder, images = build_clip(tmp_path / "pair"), pictures()[:2]
    async with await opened("zero-shot-image-classification", folder) as pipe:
        assert isinstance(pipe.model, bascule.ImageTextModel)
        asked: Any = {"candidate_labels": LABELS, "hypothesis_template": TEMPLATE}
        expected = np.load(Path(__file__).parents[1] / "goldens" / "image_text.npz")["clip_shares"]
        result = await pipe(images, **asked)
        assert same(result[0], await pipe(images[0], **asked))
        for row, shares in zip(result, expected, strict=False):
            assert [each["label"] for each in row] == [LABELS[i] for i in np.argsort(-shares)]
            assert np.allclose([each["score"] for each in row], np.sort(shares)[::-1], atol=2e-5)
        with pytest.raises(InputError, match="candidate_labels"):
            await pipe(images)
        default = await pipe(images[0], candidate_labels=LABELS)
        asked["hypothesis_template"] = "This is a photo of {}."
        assert same(default, await pipe(images[0], **asked))
    async with await opened("image-feature-extraction", folder) as pipe:
        assert isinstance(pipe.model, bascule.ImageTextModel)
        rows = await pipe.model.embed_image(images)
        assert np.allclose(await pipe(images), rows, atol=1e-6)
        with pytest.raises(InputError, match="pooling"):
            await pipe(images, pooling="mean")


async def test_unknown_tasks_and_options_are_rejected() -> None:
    with pytest.raises(InputError, match=r"one of feature-extraction.*mean 'text-generation'"):
        await bascule.pipeline("text-generaton")
    for other, task in OTHER_NAMES.items():
        with pytest.raises(InputError, match=f"mean '{task}'"):
            await bascule.pipeline(other)
    with pytest.raises(InputError, match="task: expected one of"):
        await bascule.pipeline(7)  # type: ignore[arg-type]
    async with await opened("text-generation", LLAMA) as pipe:
        with pytest.raises(InputError, match=r"text-generation, options.*mean 'max_new_tokens'"):
            await pipe("Hi", max_new_token=3)


async def test_a_model_of_another_kind_is_rejected_before_its_weights(tmp_path: Path) -> None:
    reports: list[bascule.Progress] = []
    with pytest.raises(InputError, match=r"EmbeddingModel.*does 'feature-extraction' or 'sent"):
        await bascule.pipeline("text-generation", TINY_BERT, tier="cpu", progress=reports.append)
    assert {p.stage for p in reports} >= {"config", "device"}
    assert not {p.stage for p in reports} & {"weights", "ready"}
    labels = classifier("three labels of roberta", tmp_path)
    with pytest.raises(InputError, match=r"of one label.*ClassifierModel.*'text-classification'"):
        await opened("reranking", labels)
    bare = build_vit(tmp_path / "bare", head=False)
    with pytest.raises(InputError, match=r"with labels.*ImageModel.*'image-feature-extraction'"):
        await opened("image-classification", bare)


async def test_tasks_have_a_model_of_their_own_or_ask_for_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BASCULE_CACHE", str(tmp_path))  # none was pulled
    for name, task in TASKS.items():
        if task.default_model is None:
            with pytest.raises(InputError, match=rf"{name}.*a folder.*found None"):
                await bascule.pipeline(name)
        else:
            with pytest.raises(ModelNotFoundError, match=f"bascule pull {task.default_model}"):
                await bascule.pipeline(name)


async def test_loading_passes_its_options_on(tmp_path: Path) -> None:
    async with await bascule.pipeline("feature-extraction", TINY_BERT, tier="wasm") as pipe:
        assert pipe.model.tier == "wasm"
        assert "feature-extraction" in repr(pipe)
    with pytest.raises(InputError, match="quantize"):
        await bascule.pipeline("feature-extraction", TINY_BERT, quantize=3)
