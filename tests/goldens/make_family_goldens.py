"""Makes families.json and families.npz: what transformers gives for each folder of families.py.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch==2.13.0 \\
        transformers==5.23.0 sentence-transformers==6.2.0
    /tmp/goldens/bin/python tests/goldens/make_family_goldens.py

Weights and arithmetic are float64, and so are norms and rotary angles, which transformers computes
in float32 whatever the weights are. Encoders are those of sentence-transformers with mean pooling.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.families import (
    DECODERS,
    ENCODERS,
    GPT2,
    HERE,
    N_GREEDY,
    PROMPT,
    STRIDE,
    Case,
    build,
)


class Norm64(torch.nn.Module):
    """An RMS norm in the input's type throughout."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        # Gemma's are the distance from 1.
        self.plus = float(type(norm).__name__.startswith("Gemma"))
        self.weight = norm.weight
        self.eps = getattr(norm, "variance_epsilon", None) or norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * (self.weight + self.plus)


class Rotary64(torch.nn.Module):
    """cos and sin of position * theta^(-2i / D) in float64."""

    def __init__(self, config: Any, size: int) -> None:
        super().__init__()
        exponents = -torch.arange(0, size, 2, dtype=torch.float64) / size
        self.frequencies = config.rope_parameters["rope_theta"] ** exponents

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, *_: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * self.frequencies
        both = torch.cat((angles, angles), dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


class RotaryByKind64(torch.nn.Module):
    """As Rotary64, with a base for each kind of layer."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        size = config.hidden_size // config.num_attention_heads
        exponents = -torch.arange(0, size, 2, dtype=torch.float64) / size
        result = config.rope_parameters
        self.frequencies = {kind: result[kind]["rope_theta"] ** exponents for kind in result}

    def forward(
        self, x: torch.Tensor, position_ids: torch.Tensor, kind: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        angles = position_ids[..., None].double() * self.frequencies[kind]
        both = torch.cat((angles, angles), dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)


softmax = torch.nn.functional.softmax


def softmax64(x: torch.Tensor, dim: int, dtype: object = None) -> torch.Tensor:
    """In the input's type, whatever is asked for."""
    del dtype
    return softmax(x, dim=dim)


torch.nn.functional.softmax = softmax64


def in_float64(net: Any) -> Any:
    """Replace what computes in float32."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                setattr(parent, name, Norm64(child))
    if hasattr(net.base_model, "rotary_emb"):
        size = getattr(net.config, "head_dim", None)
        size = size or net.config.hidden_size // net.config.num_attention_heads
        net.base_model.rotary_emb = Rotary64(net.config, size)
    return net


def decode(case: Case, folder: Path) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Logits of PROMPT and its greedy continuation, each step from the start."""
    # Scores are capped by the plain implementation alone.
    attention = "eager" if "attn_logit_softcapping" in case.config else "sdpa"
    net = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation=attention
    )
    net = in_float64(net.eval())
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(PROMPT).ids
    greedy: list[int] = []
    margins: list[float] = []
    with torch.no_grad():
        logits = net(torch.tensor([ids]), use_cache=False).logits[0]
        for _ in range(N_GREEDY):
            last = net(torch.tensor([ids + greedy]), use_cache=False).logits[0, -1]
            best = last.topk(2)
            greedy.append(int(best.indices[0]))
            margins.append(round(float(best.values[0] - best.values[1]), 6))
    return {"ids": ids, "greedy": greedy, "margins": margins}, logits[::STRIDE].numpy().astype(
        np.float32
    )


def embed(case: Case, folder: Path) -> np.ndarray[Any, Any]:
    """Every text's embedding, one a batch."""
    model = SentenceTransformer(str(folder), device="cpu").double()
    net = model[0].model
    if hasattr(net, "rotary_emb"):
        net.rotary_emb = RotaryByKind64(net.config)
    return np.concatenate([model.encode([text]) for text in case.texts]).astype(np.float32)


if __name__ == "__main__":
    told: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as home:
        for case in (*DECODERS, GPT2):
            folder = build(case, Path(home) / case.name)
            told[case.name], arrays[case.name] = decode(case, folder)
            print(case.name, told[case.name]["greedy"], min(told[case.name]["margins"]))
        for case in ENCODERS:
            arrays[case.name] = embed(case, build(case, Path(home) / case.name))
    (HERE / "families.json").write_text(json.dumps(told) + "\n", encoding="utf-8")
    np.savez_compressed(HERE / "families.npz", **arrays)
