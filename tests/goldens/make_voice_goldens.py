"""Write voice.npz: how probable speech is in `tests.goldens.voice`'s sounds, by torch in float64.

In an environment of its own: pip install torch numpy silero-vad, then from the repository's root
`PYTHONPATH=. python tests/goldens/make_voice_goldens.py`. The weights are the package's
silero_vad_16k.safetensors. Its TorchScript, filled with them, has to agree (in float32), and finds
the spans.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import silero_vad
import torch
from silero_vad.utils_vad import get_speech_timestamps
from torch.nn.functional import conv1d, pad

from tests.goldens.voice import RATE, SOUNDS

DATA = Path(silero_vad.__file__).parent / "data"
PARTS = {
    **{f"_model.encoder.{i}.reparam_conv": f"conv{i + 1}" for i in range(4)},
    "_model.decoder.rnn.weight": "lstm_cell.weight",
    "_model.decoder.rnn.bias": "lstm_cell.bias",
    "_model.decoder.decoder.2": "final_conv",
}


def weights() -> dict[str, torch.Tensor]:
    """The tensors of the file."""
    data = (DATA / "silero_vad_16k.safetensors").read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    header.pop("__metadata__", None)
    tensors = {}
    for name, info in header.items():
        start, end = (8 + n + offset for offset in info["data_offsets"])
        flat = np.frombuffer(data[start:end], np.float32).copy()
        tensors[name] = torch.tensor(flat).reshape(info["shape"])
    return tensors


def windows(x: torch.Tensor) -> torch.Tensor:
    """Each 512 samples behind the 64 before."""
    return pad(x, (64, -len(x) % 512)).unfold(0, 576, 512)


def by_torch(tensors: dict[str, torch.Tensor], x: torch.Tensor) -> np.ndarray:
    """Probabilities in float64."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    y = pad(windows(x.double()), (0, 64), mode="reflect")[:, None]
    y = conv1d(y, t["stft_conv.weight"], stride=128)
    y = torch.hypot(y[:, :129], y[:, 129:])
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        bias = t[f"{name}.bias"]
        y = conv1d(y, t[f"{name}.weight"], bias, stride=stride, padding=1).relu()
    cell = torch.nn.LSTMCell(128, 128).double()
    cell.load_state_dict({n[10:]: w for n, w in t.items() if n.startswith("lstm_cell.")})
    state = torch.zeros(2, 1, 128).double().unbind()
    hidden = []
    for row in y[:, :, 0]:
        state = cell(row[None], state)
        hidden.append(state[0].relu())
    logits = torch.cat(hidden) @ t["final_conv.weight"].reshape(128) + t["final_conv.bias"]
    return torch.sigmoid(logits).detach().numpy()


tensors = weights()
script = torch.jit.load(DATA / "silero_vad.jit")
filled = script.state_dict()
for name in filled:
    for theirs, ours in PARTS.items():
        if name.startswith(theirs):
            filled[name].copy_(tensors[name.replace(theirs, ours)])
script.load_state_dict(filled)

found: dict[str, np.ndarray] = {}
for name, sound in SOUNDS.items():
    x = torch.tensor(sound())
    probabilities = by_torch(tensors, x)
    script.reset_states()
    steps = pad(x, (0, -len(x) % 512)).split(512)
    again = np.array([float(script(step, RATE).detach()) for step in steps])
    assert np.abs(again - probabilities).max() < 1e-5
    spans = get_speech_timestamps(x, script)
    found[name] = probabilities
    found[f"{name}_spans"] = np.array([(s["start"], s["end"]) for s in spans]).reshape(-1, 2)
    print(name, probabilities.round(3)[:8], found[f"{name}_spans"].tolist())
np.savez_compressed(Path(__file__).with_name("voice.npz"), **found)
