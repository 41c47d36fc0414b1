"""Write mel.npz: what transformers' WhisperFeatureExtractor makes of `tests.audio.sounds`.

In an environment of its own: pip install transformers numpy, then from the repository's root
`PYTHONPATH=. python tests/goldens/make_mel_goldens.py`. Every 61st frame is stored, and its last.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from transformers import WhisperFeatureExtractor

from tests.audio.sounds import KEPT_FRAMES, SOUNDS

found: dict[str, np.ndarray] = {}
for bands in (80, 128):
    extractor = WhisperFeatureExtractor(feature_size=bands)
    for name, sound in SOUNDS.items():
        wide = np.zeros(480_000)
        samples = sound()
        wide[: len(samples)] = samples
        mel = extractor._np_extract_fbank_features(wide[None], "cpu")[0]
        found[f"{name}_{bands}"] = mel[:, KEPT_FRAMES].astype(np.float32)
np.savez_compressed(Path(__file__).with_name("mel.npz"), **found)
