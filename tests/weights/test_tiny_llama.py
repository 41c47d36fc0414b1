"""The tiny Llama files as Bascule and the gguf package read them, and what the goldens promise."""

from __future__ import annotations

import gguf
import gguf.quants
import numpy as np
import pytest

from bascule.program.blocks import dequantize
from bascule.weights.gguf import GgufHeader, parse_gguf
from tests.goldens import llama
from tests.goldens.llama import TINY_NAMES, TinyName


@pytest.mark.parametrize("name", TINY_NAMES)
def test_a_tiny_file_reads_as_the_gguf_package_reads_it(name: TinyName) -> None:
    path = llama.tiny(name).path
    data = path.read_bytes()
    header = parse_gguf(data, len(data), path.name)
    assert isinstance(header, GgufHeader)
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert header.tensors.keys() == theirs.keys()
    for tensor in header.tensors.values():
        stored = data[tensor.start : tensor.start + tensor.nbytes]
        ours = dequantize(tensor.type, stored, int(np.prod(tensor.shape)))
        other = theirs[tensor.name]
        expected = gguf.quants.dequantize(other.data, other.tensor_type)
        assert tensor.shape == expected.shape
        np.testing.assert_array_equal(ours.reshape(tensor.shape), expected)


@pytest.mark.parametrize("name", TINY_NAMES)
def test_a_tiny_golden_has_clear_choices(name: TinyName) -> None:
    golden = llama.tiny(name)
    best = np.sort(golden.logits, axis=1)[:, -2:]
    assert (best[:, 1] - best[:, 0]).min() > 0.03
    for chat in golden.chats:
        assert len(chat.ids) == len(chat.margins) == 32
        assert min(chat.margins) > 0.1


def test_a_narrow_choice_may_fall_either_way() -> None:
    chat = llama.Chat([], "", [], ids=[1, 2, 3], margins=[1, 0.0005, 1], end=None, text="")
    assert chat.parts_at([1, 2, 3]) is None
    assert chat.parts_at([1, 9, 9]) is None
    assert chat.parts_at([9, 2, 3]) == 0
    assert chat.parts_at([1, 2, 9]) == 2


def test_the_long_text_and_the_windows_are_whole() -> None:
    long, perplexity = llama.long_text(), llama.perplexity()
    assert long.hidden.shape == (len(long.ids), 576) == (200, 576)
    assert len(perplexity.ids) == perplexity.window * len(perplexity.losses)
    assert np.isclose(np.exp(np.mean(perplexity.losses)), perplexity.perplexity)


def test_llama_cpp_on_a_float32_copy_chooses_as_the_reference_does() -> None:
    copy = llama.llama_cpp("float32")
    for name, chat in llama.prompts().items():
        assert copy.chats[name].ids == chat.ids
    assert copy.long.ids == llama.long_text().top_ids[:, 0].tolist()
    assert np.isclose(copy.perplexity, llama.perplexity().perplexity, rtol=1e-6)


def test_llama_cpp_on_the_file_chooses_as_the_reference_does_where_it_is_clear() -> None:
    seen = llama.llama_cpp("quantized")
    pairs = [(seen.chats[name], chat.ids) for name, chat in llama.prompts().items()]
    pairs.append((seen.long, llama.long_text().top_ids[:, 0].tolist()))
    for choices, expected in pairs:
        for result, margin, right in zip(choices.ids, choices.margins, expected, strict=True):
            assert result == right or margin < 0.3
