"""Makes text.json: token ids and rendered chats by independent implementations.

    python -m venv /tmp/goldens && /tmp/goldens/bin/pip install transformers jinja2 gguf
    PYTHONPATH=. /tmp/goldens/bin/python tests/goldens/make_text_goldens.py MODEL.gguf

The ids are those of `tokenizers`, put together as SmolLM2's makers did in their tokenizer.json
(single digits, then GPT-2's byte-level words) from the vocabulary that the `gguf` package reads;
the chats are rendered by transformers.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers.utils.chat_template_utils import _compile_jinja_template

from tests.text.chats import CALLS, CHATS, TEMPLATES, TOOLS
from tests.text.strings import random_text

HERE = Path(__file__).resolve().parent


def makers_tokenizer(path: str, *, special: bool) -> Tokenizer:
    """The tokenizer that reads the control tokens in a text, or takes them for text."""
    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    kinds = fields["tokenizer.ggml.token_type"].contents()
    tokenizer = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    if special:
        control = [t for t, kind in zip(tokens, kinds, strict=True) if kind == 3]
        tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in control])
    return tokenizer


def main() -> None:
    source = random.Random(20261)
    texts = ["", " ", *(random_text(source, 12) for _ in range(60))]
    ids = {
        name: [makers.encode(text, add_special_tokens=False).ids for text in texts]
        for name, special in (("plain", False), ("special", True))
        if (makers := makers_tokenizer(sys.argv[1], special=special))
    }
    chats = {
        name: {chat: rendered(template, messages, None) for chat, messages in CHATS.items()}
        for name, template in TEMPLATES.items()
    }
    chats["qwen2"]["calls"] = rendered(TEMPLATES["qwen2"], CALLS, TOOLS)
    results = {"texts": texts, **ids, "chats": chats}
    result = json.dumps(results, ensure_ascii=True, separators=(",", ":"))
    (HERE / "text.json").write_text(result + "\n")


def rendered(template: str, messages: list, tools: list | None) -> str:
    return _compile_jinja_template(template).render(
        messages=messages,
        tools=tools,
        add_generation_prompt=True,
        bos_token="<s>",
        eos_token="</s>",
    )


if __name__ == "__main__":
    main()
