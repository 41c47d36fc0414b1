"""What a sentence-transformers folder says beside config.json; every such file may be absent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bascule.errors import ModelFileError, UnsupportedModelError
from bascule.json_object import read_json
from bascule.model.bert import BertConfig
from bascule.model.embedder import EmbedderSettings

_SPECIAL_TOKENS = 2  # [CLS] and [SEP]

ReadOptional = Callable[[str], Awaitable[bytes | None]]


async def embedder_settings(config: BertConfig, read: ReadOptional) -> EmbedderSettings:
    """Gather the longest text, the pooling and whether embeddings are normalised.

    `read(file)` gives a file's bytes or None where the folder has no such file; then the usual
    choices stand: as many tokens as there are positions, mean pooling, length 1.
    """
    names = ("sentence_bert_config.json", "1_Pooling/config.json", "modules.json")
    sentence, pooling, modules = await asyncio.gather(*(_json(read, name) for name in names))
    return EmbedderSettings(
        config=config,
        max_tokens=_max_tokens(config, sentence),
        pooling=_pooling(pooling),
        normalise=_normalise(modules),
    )


async def _json(read: ReadOptional, file: str) -> Any:
    data = await read(file)
    return None if data is None else read_json(data, file)


def _max_tokens(config: BertConfig, sentence: Any) -> int:
    found = sentence.get("max_seq_length") if isinstance(sentence, dict) else None
    if found is None:
        return config.positions
    if isinstance(found, bool) or not isinstance(found, int) or found <= _SPECIAL_TOKENS:
        raise ModelFileError("sentence_bert_config.json", f"max_seq_length is {found!r}")
    return min(found, config.positions)


def _pooling(pooling: Any) -> str:
    if not isinstance(pooling, dict):
        return "mean"
    chosen = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    match chosen:
        case ["pooling_mode_mean_tokens"] | []:
            return "mean"
        case ["pooling_mode_cls_token"]:
            return "cls"
        case _:
            raise UnsupportedModelError("1_Pooling/config.json", f"it asks for {chosen}")


def _normalise(modules: Any) -> bool:
    if not isinstance(modules, list):
        return True
    return any(
        isinstance(m, dict) and str(m.get("type", "")).endswith(".Normalize") for m in modules
    )
