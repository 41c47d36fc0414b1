"""SigLIP (Zhai et al. 2023): images and texts in one space, each pair scored independently."""

from __future__ import annotations

import re

from bascule.models.family import ImageTextFamily
from bascule.models.siglip.config import read_config
from bascule.models.siglip.files import BIAS, SCALE, as_matrices, tensors
from bascule.models.siglip.graph import record_image, record_text
from bascule.models.siglip.tokenizer import SPIECE_HINT, canonicalized

SIGLIP = ImageTextFamily(
    name="siglip",
    examples="such as siglip-base-patch16-224",
    model_types=("siglip",),
    tensor_name=str,
    ignored=re.compile(r"(text|vision)_model\.embeddings\.position_ids"),
    config=read_config,
    tensors=tensors,
    as_matrices=as_matrices,
    encode_image=record_image,
    encode_text=record_text,
    logit_scale=SCALE,
    logit_bias=BIAS,
    squash="sigmoid",
    processing={
        "do_resize": True,
        "do_center_crop": False,
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    },
    tokenizer_hint=SPIECE_HINT,
    adapt_tokenizer=canonicalized,
)
