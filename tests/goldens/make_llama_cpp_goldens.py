"""Adds llama.cpp's view of the goldens that make_llama_goldens.py wrote, and compares the two.

    python -m venv llama-cpp
    llama-cpp/bin/pip install llama-cpp-python gguf numpy
    llama-cpp/bin/python tests/goldens/make_llama_cpp_goldens.py SmolLM2-135M-Instruct.Q4_1.gguf

The install compiles llama.cpp. Teacher-forced: the float64 reference's tokens go in, and what
llama.cpp would have chosen at each position comes out, with the margin of its two best logits; the
KV cache is float32. Twice: with the file as it is, where llama.cpp rounds activations to 8 bits
before each product with a quantized weight, so that the two agree only where the margin is CLEAR;
and with a float32 copy of the same numbers, which is not rounded so. Fails if they disagree there,
or on a prompt's tokens. llama.py beside this tells what the written file holds.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize
from llama_cpp import Llama

HERE = Path(__file__).resolve().parent
CLEAR = 0.3
CLEAR_IN_FLOAT32 = 1e-3
F32 = 0


def read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def open_model(path: Path, n_tokens: int) -> Llama:
    return Llama(
        str(path), n_ctx=n_tokens, n_batch=n_tokens, logits_all=True, verbose=False,
        flash_attn=False, type_k=F32, type_v=F32,
    )  # fmt: skip


def copy_in_float32(path: Path, to: Path) -> None:
    """The same model with each weight as the float32 that its block stands for."""
    reader, writer = GGUFReader(path), GGUFWriter(to, "llama")
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = 0 if key == "general.file_type" else field.contents()
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, value, field.types[0], inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def forced(model: Llama, ids: list[int]) -> np.ndarray:
    """Logits (T, V) after each token of a sequence that starts at position 0."""
    model.reset()
    model.eval(ids)
    return np.array(model.scores[: len(ids)], np.float64)


def best(logits: np.ndarray) -> dict[str, Any]:
    """Each row's likeliest id and by how much it leads."""
    top = np.partition(logits, -2, axis=1)[:, -2:]
    margins = [round(float(m), 4) for m in top[:, 1] - top[:, 0]]
    return {"ids": logits.argmax(1).tolist(), "margins": margins}


def compare(name: str, seen: dict[str, Any], expected: list[int], clear: float) -> None:
    """Print how far the choices agree; SystemExit if they differ where llama.cpp's is clear."""
    rows = list(zip(seen["ids"], seen["margins"], expected, strict=True))
    wrong = [margin for result, margin, right in rows if result != right]
    widest = max(wrong, default=0.0)
    n_clear = sum(margin >= clear for _, margin, _ in rows)
    print(f"{name}: {len(rows)} positions, {n_clear} clear, {len(wrong)} differ, by up to {widest}")
    if widest >= clear:
        raise SystemExit(f"{name}: llama.cpp disagrees")


def check_tokens(model: Llama, text: str, expected: list[int]) -> None:
    if model.tokenize(text.encode(), add_bos=False, special=True) != expected:
        raise SystemExit(f"Other tokens than the goldens': {text[:40]!r}")


def window_losses(model: Llama, ids: list[int], window: int) -> list[float]:
    losses: list[float] = []
    for start in range(0, len(ids), window):
        part = ids[start : start + window]
        logits = forced(model, part)[:-1]
        maximum = logits.max(1, keepdims=True)
        totals = np.log(np.exp(logits - maximum).sum(1)) + maximum[:, 0]
        losses.append(float((totals - logits[np.arange(len(part) - 1), part[1:]]).mean()))
    return losses


def view(path: Path, clear: float) -> dict[str, Any]:
    """What llama.cpp chooses on all of SmolLM2's goldens."""
    folder, model = HERE / "smollm2", open_model(path, 512)
    chats: dict[str, Any] = {}
    for name, chat in read_json(folder / "chats.json")["chats"].items():
        check_tokens(model, chat["prompt"], chat["prompt_ids"])
        logits = forced(model, chat["prompt_ids"] + chat["ids"][:-1])
        chats[name] = best(logits[len(chat["prompt_ids"]) - 1 :])
        compare(name, chats[name], chat["ids"], clear)
    config = read_json(folder / "long.json")
    check_tokens(model, config["text"], config["ids"])
    long = best(forced(model, config["ids"]))
    compare("long", long, [top[0] for top in config["top_ids"]], clear)
    config = read_json(folder / "perplexity.json")
    losses = window_losses(model, config["ids"], config["window"])
    perplexity = math.exp(sum(losses) / len(losses))
    print(f"perplexity {perplexity:.5f}, in float64 {config['perplexity']:.5f}")
    return {"chats": chats, "long": long, "perplexity": perplexity}


def smollm2(path: Path) -> None:
    result: dict[str, Any] = {
        "file": path.name,
        "made_with": {"llama-cpp-python": version("llama-cpp-python")},
        "system": llama_cpp.llama_print_system_info().decode().strip(),
        "quantized": view(path, CLEAR),
    }
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "float32.gguf"
        copy_in_float32(path, copy)
        result["float32"] = view(copy, CLEAR_IN_FLOAT32)
    (HERE / "smollm2" / "llama_cpp.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


def tiny(path: Path) -> None:
    """Only compares: a file that llama.cpp reads as the reference does is a sound file."""
    golden = read_json(path.with_suffix(".json"))
    expected = np.load(path.with_suffix(".npz"))["logits"]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "float32.gguf"
        copy_in_float32(path, copy)
        for file, clear in ((path, CLEAR), (copy, CLEAR_IN_FLOAT32)):
            model = open_model(file, 256)
            logits = forced(model, golden["ids"])
            print(f"{path.stem}: logits differ by up to {np.abs(logits - expected).max():.2g}")
            compare(path.stem, best(logits), expected.argmax(1).tolist(), clear)
            for chat in golden["chats"]:
                check_tokens(model, chat["prompt"], chat["prompt_ids"])
                logits = forced(model, chat["prompt_ids"] + chat["ids"][:-1])
                seen = best(logits[len(chat["prompt_ids"]) - 1 :])
                compare(f"{path.stem}, chat", seen, chat["ids"], clear)


if __name__ == "__main__":
    for tiny_file in sorted((HERE / "tiny-llama").glob("*.gguf")):
        tiny(tiny_file)
    for given in sys.argv[1:]:
        smollm2(Path(given).expanduser())
