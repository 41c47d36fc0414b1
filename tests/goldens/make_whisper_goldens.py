"""Write whisper.npz: what transformers gives for the folder of whisper.py, in float64.

In the environment of make_family_goldens.py: python tests/goldens/make_whisper_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.whisper import N_GREEDY, START, TEACHER, build, spectrum

with tempfile.TemporaryDirectory() as home, torch.no_grad():
    folder = build(Path(home) / "whisper")
    net = WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()
    mel = torch.from_numpy(spectrum())[None].double()
    states = net.model.encoder(mel).last_hidden_state
    heard = (states,)

    def logits(ids: list[int]) -> torch.Tensor:
        given = torch.tensor([ids])
        return net(encoder_outputs=heard, decoder_input_ids=given, use_cache=False).logits[0]

    taught = logits(TEACHER)
    # Attention without the fused kernel, which gives no weights: (layers, heads, T, X).
    net.set_attn_implementation("eager")
    given = torch.tensor([TEACHER])
    found = net(encoder_outputs=heard, decoder_input_ids=given, output_attentions=True)
    crossed = torch.stack([each[0] for each in found.cross_attentions])
    greedy, margins = [START], []
    for _ in range(N_GREEDY):
        best = logits(greedy)[-1].topk(2)
        greedy.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
    print(greedy, min(margins))
    np.savez_compressed(
        Path(__file__).with_name("whisper.npz"),
        states=states[0].numpy().astype(np.float32),
        logits=taught.numpy().astype(np.float32),
        crossed=crossed.numpy().astype(np.float32),
        greedy=np.array(greedy, np.uint32),
        margin=np.array(min(margins), np.float32),
    )
