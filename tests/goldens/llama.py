"""Goldens of Llama models, as tests use them; make_llama_goldens.py tells who made them.

smollm2/chats.json       prompts of SmolLM2-135M-Instruct with 32 greedy tokens each, in float64
smollm2/long.{json,npz}  200 tokens of text with the float64 reference's last hidden states
smollm2/perplexity.json  the loss of each window of perplexity.txt, in float64
smollm2/llama_cpp.json   what llama.cpp chooses at each position of the above
tiny-llama/NAME.gguf     a whole random model; NAME.json its chats and text, NAME.npz its logits
tiny-llama/folder/       another one as Hugging Face keeps it, with folder.json and folder.npz
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bascule.program.blocks import BlockMatrix
from bascule.weights.gguf import GgufHeader, parse_gguf

HERE = Path(__file__).resolve().parent
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
# A choice between two logits closer than this may fall either way.
NARROW = 1e-3

TinyName = Literal["tiny-q4_1", "tiny-mixed", "tiny-k"]
TINY_NAMES: tuple[TinyName, ...] = ("tiny-q4_1", "tiny-mixed", "tiny-k")


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation and its 32 likeliest next tokens, each chosen after those before it.

    `ids` go on past an end token, <|im_end|> or <|endoftext|>; `end` is the first one's index in
    `ids`, and `text` is what stands before it, other control tokens written out. `margins` tell by
    how much each choice led the second best logit.
    """

    messages: list[dict[str, str]]
    prompt: str
    prompt_ids: list[int]
    ids: list[int]
    margins: list[float]
    end: int | None
    text: str

    def parts_at(self, found: Sequence[int]) -> int | None:
        """The index where `found` leaves a choice that was not narrow; None if it does not.

        After a narrow choice that fell the other way nothing more is compared.
        """
        for index, (ours, theirs) in enumerate(zip(found, self.ids, strict=False)):
            if ours != theirs:
                return index if self.margins[index] >= NARROW else None
        return None


@dataclass(frozen=True, slots=True)
class LongText:
    """200 tokens T from position 0, and the reference's numbers after each of them."""

    text: str
    ids: list[int]
    hidden: NDArray[np.float32]  # (T, C), after the last norm
    norms: NDArray[np.float64]  # (T,) of the logits
    top_ids: NDArray[np.int64]  # (T, 8), the likeliest first
    top_logits: NDArray[np.float64]  # (T, 8)

    def logits(self, embedding: NDArray[np.float32]) -> NDArray[np.float64]:
        """The reference's logits (T, V), out of the model's dequantized embedding (V, C)."""
        return self.hidden.astype(np.float64) @ embedding.astype(np.float64).T


@dataclass(frozen=True, slots=True)
class Perplexity:
    """The loss of a text cut into windows of 512 tokens that do not overlap.

    Each window starts at position 0 with no past. `losses` has for each window the mean negative
    log-likelihood in nats of its tokens 1 to 511, given all before them in the window; its first
    token is not scored. `perplexity` is exp of the mean of `losses`. `ids` are the windows' tokens;
    the text's last tokens, which fill no window, are left out.
    """

    ids: list[int]
    window: int
    losses: list[float]
    perplexity: float


@dataclass(frozen=True, slots=True)
class Choices:
    """The likeliest token after each position, and by how much its logit led."""

    ids: list[int]
    margins: list[float]


@dataclass(frozen=True, slots=True)
class LlamaCpp:
    """llama.cpp on the same tokens: for a chat, its choice instead of each of `Chat.ids`."""

    chats: Mapping[str, Choices]
    long: Choices
    perplexity: float


@dataclass(frozen=True, slots=True)
class Tiny:
    """A random model's place, two chats, and the logits (T, V) after each of 40 tokens."""

    path: Path
    chats: list[Chat]
    ids: list[int]
    logits: NDArray[np.float32]


def prompts() -> dict[str, Chat]:
    """SmolLM2's chats: short, code, accents, list, long, and system with its own system message."""
    return {name: _chat(result) for name, result in _json("smollm2/chats.json")["chats"].items()}


def long_text() -> LongText:
    """SmolLM2 on 200 tokens of prose, code, numbers and accents."""
    result = _json("smollm2/long.json")
    with np.load(HERE / "smollm2/long.npz") as arrays:
        return LongText(
            text=result["text"],
            ids=result["ids"],
            hidden=arrays["hidden"],
            norms=arrays["norms"],
            top_ids=np.array(result["top_ids"]),
            top_logits=arrays["top_logits"],
        )


def perplexity() -> Perplexity:
    """SmolLM2 on perplexity.txt: five windows; a slow tier may take `losses[0]` alone."""
    result = _json("smollm2/perplexity.json")
    return Perplexity(result["ids"], result["window"], result["losses"], result["perplexity"])


def llama_cpp(weights: Literal["quantized", "float32"]) -> LlamaCpp:
    """llama.cpp on SmolLM2's file, or on a float32 copy of the same numbers.

    With the file as it is llama.cpp rounds activations to 8 bits, so that it errs by about 0.1 a
    logit: its choices bind where it leads by 0.3. With the copy it agrees with the reference.
    """
    result = _json("smollm2/llama_cpp.json")[weights]
    chats = {name: Choices(**seen) for name, seen in result["chats"].items()}
    return LlamaCpp(chats, Choices(**result["long"]), result["perplexity"])


def tiny(name: TinyName) -> Tiny:
    """A random model of a few layers, whose file stands among the goldens."""
    return _tiny(name, f"{name}.gguf")


def tiny_folder() -> Tiny:
    """One in safetensors; make_tiny_llama_folder.py tells what it has that the others have not."""
    return _tiny("folder", "folder")


def _tiny(name: str, place: str) -> Tiny:
    result = _json(f"tiny-llama/{name}.json")
    with np.load(HERE / f"tiny-llama/{name}.npz") as arrays:
        logits = arrays["logits"]
    chats = [_chat(chat) for chat in result["chats"]]
    return Tiny(HERE / "tiny-llama" / place, chats, result["ids"], logits)


def token_embedding(file: Path) -> NDArray[np.float32]:
    """A GGUF file's token embedding (V, C), dequantized: what `LongText.logits` takes."""
    raw = np.memmap(file, np.uint8, "r")
    header = parse_gguf(raw[: 4 << 20].tobytes(), len(raw), file.name)
    assert isinstance(header, GgufHeader)
    tensor = header.tensors["token_embd.weight"]
    rows, columns = tensor.shape
    data = raw[tensor.start : tensor.start + tensor.nbytes]
    return BlockMatrix(tensor.type, (rows, columns), data).rows(0, rows)


def _chat(told: dict[str, Any]) -> Chat:
    return Chat(**told)


def _json(name: str) -> dict[str, Any]:
    return json.loads((HERE / name).read_text(encoding="utf-8"))
