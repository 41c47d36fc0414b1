"""Write whisper.npz: what transformers gives for the folder of whisper.py, in float64.

In the environment of make_family_goldens.py: python tests/goldens/make_whisper_goldens.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.goldens.whisper import BEAMS, N_BEAM_TOKENS, N_GREEDY, START, TEACHER, build, spectrum

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
    beam_ids, totals = np.full((len(BEAMS), N_BEAM_TOKENS), -1), []
    for at, (end, beams, penalty) in enumerate(BEAMS):
        net.set_attn_implementation("sdpa")
        config = GenerationConfig(
            num_beams=beams,
            length_penalty=penalty,
            early_stopping=True,
            max_new_tokens=N_BEAM_TOKENS,
            eos_token_id=end,
            pad_token_id=1,
            output_scores=True,
            return_dict_in_generate=True,
        )
        given = torch.tensor([[START]])
        # Whisper's own generate adds rules of its own.
        found = GenerationMixin.generate(
            net,
            generation_config=config,
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            decoder_input_ids=given,
        )
        ids = found.sequences[0, 1:].tolist()
        length = ids.index(end) + 1 if end in ids else len(ids)
        text = ids[: length - 1] if end in ids else ids
        beam_ids[at, : len(text)] = text
        totals.append(float(found.sequences_scores[0]) * length**penalty)
    print(beam_ids, totals)
    np.savez_compressed(
        Path(__file__).with_name("whisper.npz"),
        states=states[0].numpy().astype(np.float32),
        logits=taught.numpy().astype(np.float32),
        crossed=crossed.numpy().astype(np.float32),
        beam_ids=beam_ids.astype(np.int32),
        beam_totals=np.array(totals, np.float32),
        greedy=np.array(greedy, np.uint32),
        margin=np.array(min(margins), np.float32),
    )
