"""Makes the goldens: embeddings by an independent implementation, in float64.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install torch transformers safetensors
    /tmp/goldens/bin/python tests/goldens/make_goldens.py ~/.cache/bascule/models/all-MiniLM-L6-v2

The independent implementation is transformers' BertModel with the same weights as float64, then
masked mean and L2 norm as sentence-transformers defines them. Writes beside itself:
minilm.json and minilm.npy (texts and embeddings), tokenizer.json (ids of awkward texts) and
tiny-bert/ (a whole random model with odd sizes) with tiny-bert.npy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel

HERE = Path(__file__).resolve().parent
MAX_TOKENS = 256

TEXTS = [
    "",
    "Bridges.",
    "A cat sits on the mat.",
    "Ein Schiff fährt unter der Brücke hindurch.",
    "コンピュータは速い。",
    "Emoji 🚢🌉 count too.",
    "matrix " * 30,
    "The drawbridge was raised at dawn to let the fleet pass. " * 9,
    "word " * 254,
    "one more word than fits " * 80,
]
AWKWARD = [
    "", " ", "\t\n\r", "Hello, World!", "naïve café résumé", "nai\u0308ve cafe\u0301", "ÅNGSTRÖM ß ﬁ",
    "🚀", "👩‍👩‍👧‍👦 family", "日本語のテキスト", "中文字符mixed with English", "한국어 문장입니다", "العربية", "עברית",
    "[MASK] in the text", "[CLS] [SEP] [UNK] [PAD]", "[mask]", "don't can't won't", "a" * 101,
    "supercalifragilisticexpialidocious " * 3, "a\u0000b\u0001c\u007f", "zero\u200bwidth\u200djoin\ufeff",
    "soft\u00adhyphen", "tab\tand\u00a0nbsp", "price: $1,234.56 (50% off!)", "e-mail@example.com",
    "https://example.com/a?b=c&d=e#f", "x²+y³=z⁴ ½ ¾ Ⅷ", "ﾊﾝｶｸ ｶﾀｶﾅ", "İstanbul ıI", "\ufffd replacement",
    "\U0001d4d0\U0001d4d1 math letters", "Ω≈ç√∫˜µ≤≥÷", "क्षत्रिय हिन्दी", "ไทยภาษา", "‘quotes’ “double” – — …",
    "CamelCaseWords and snake_case_words", "1234567890" * 5, ("lorem ipsum dolor " * 600)[:10000],
    "\u0301leading mark", "##wordpiece ## #", "𠀀𠀁 rare CJK",
]  # fmt: skip


def embed(model: BertModel, batch: list[list[int]]) -> np.ndarray:
    """Masked mean over tokens, then length 1, all in float64."""
    longest = max(len(ids) for ids in batch)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in batch])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in batch])
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


def minilm(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=MAX_TOKENS)
    awkward = {"texts": AWKWARD, "ids": [tokenizer.encode(text).ids for text in AWKWARD]}
    (HERE / "tokenizer.json").write_text(json.dumps(awkward))
    model = BertModel.from_pretrained(folder, attn_implementation="eager").double().eval()
    ids = [tokenizer.encode(text).ids for text in TEXTS]
    result = {"texts": TEXTS, "tokens": [len(row) for row in ids], "ids": ids}
    (HERE / "minilm.json").write_text(json.dumps(result))
    np.save(HERE / "minilm.npy", np.concatenate([embed(model, [row]) for row in ids]))


def tiny() -> None:
    """A random model whose sizes fit no tile, vec4 or power of two."""
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=99, hidden_size=35, num_hidden_layers=2, num_attention_heads=5,
        intermediate_size=27, max_position_embeddings=40, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = BertModel(config, add_pooling_layer=False).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.3
    folder = HERE / "tiny-bert"
    folder.mkdir(exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    kept = (
        "model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
        "intermediate_size", "max_position_embeddings", "layer_norm_eps", "hidden_act",
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps({k: getattr(config, k) for k in kept}, indent=1))
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    vocabulary |= {f"w{i}": i for i in range(4, 99)}
    special = [
        {"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for t, i in list(vocabulary.items())[:4]
    ]  # fmt: skip
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
        "normalizer": None, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}},
        },
        "decoder": None,
        "model": {"type": "WordPiece", "vocab": vocabulary, "unk_token": "[UNK]",
                  "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    texts = ["w4", "w5 w6 w98", " ".join(f"w{4 + i % 95}" for i in range(38)), "w50 unknown w51"]
    encoded = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = [encoded.encode(text).ids for text in texts]
    np.save(HERE / "tiny-bert.npy", np.concatenate([embed(model.double(), [row]) for row in ids]))
    (HERE / "tiny-bert.json").write_text(json.dumps({"texts": texts, "ids": ids}))


if __name__ == "__main__":
    minilm(Path(sys.argv[1]).expanduser())
    tiny()
