"""Write t5.npz: what transformers gives for the folders of t5.py, in float64.

In the environment of make_family_goldens.py: python tests/goldens/make_t5_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.t5 import CASES, N_GREEDY, TARGET, TEXTS, build, pieces


def answer(net: Any, states: torch.Tensor, target: list[int]) -> torch.Tensor:
    """The logits behind each of these tokens."""
    ids = torch.tensor([target])
    return net(encoder_outputs=(states,), decoder_input_ids=ids, use_cache=False).logits[0]


found: dict[str, np.ndarray] = {}
with tempfile.TemporaryDirectory() as home, torch.no_grad():
    for name in CASES:
        folder = build(name, Path(home) / name)
        net = T5ForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()
        stored = load_file(folder / "model.safetensors")
        if "lm_head.weight" in stored:
            assert torch.equal(net.lm_head.weight, stored["lm_head.weight"].double())
            assert torch.equal(net.shared.weight, stored["shared.weight"].double())
            assert not net.config.scale_decoder_outputs
        for at, text in enumerate(TEXTS):
            ids = pieces().encode(text).ids
            given = torch.tensor([ids])
            states = net.encoder(given).last_hidden_state
            logits = partial(answer, net, states)

            greedy, margins = [0], []
            for _ in range(N_GREEDY):
                best = logits(greedy)[-1].topk(2)
                margins.append(float(best.values[0] - best.values[1]))
                if int(best.indices[0]) == 1:
                    break
                greedy.append(int(best.indices[0]))
            print(name, at, len(ids), greedy, min(margins), pieces().decode(greedy))
            key = f"{name}.{at}"
            found[f"{key}.ids"] = np.array(ids, np.uint32)
            found[f"{key}.states"] = states[0].numpy().astype(np.float32)
            found[f"{key}.greedy"] = np.array(greedy[1:], np.uint32)
            found[f"{key}.text"] = np.array(pieces().decode(greedy))
            found[f"{key}.margin"] = np.array(min(margins))
            if at in (0, 2):
                found[f"{key}.logits"] = logits([0, *TARGET]).numpy().astype(np.float32)
np.savez_compressed(Path(__file__).with_name("t5.npz"), **found)
