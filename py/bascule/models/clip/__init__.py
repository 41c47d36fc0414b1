"""CLIP (Radford et al. 2021): images and texts in one embedding space."""

from __future__ import annotations

import re

from bascule.models.clip.config import read_config
from bascule.models.clip.files import as_matrices, tensors
from bascule.models.clip.graph import record_image, record_text
from bascule.models.clip.tokenizer import tokenizer_json
from bascule.models.family import ImageTextFamily

CLIP = ImageTextFamily(
    name="clip",
    examples="such as clip-vit-base-patch32",
    model_types=("clip",),
    tensor_name=str,
    ignored=re.compile(r"(text|vision)_model\.embeddings\.position_ids"),
    config=read_config,
    tensors=tensors,
    as_matrices=as_matrices,
    encode_image=record_image,
    encode_text=record_text,
    logit_scale="logit_scale",
    tokenizer_json=tokenizer_json,
    processing={
        "resample": 3,
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    },
)
