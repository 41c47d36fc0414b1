"""The kind of a model_type or GGUF architecture, and the supported families of each kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bascule.errors import UnsupportedModelError
from bascule.models.family import AnyFamily, DecoderFamily

# Frequent model types of Hugging Face, by what the models do.
_TYPES: Mapping[str, str] = {
    "text generation": (
        "llama mistral mixtral ministral qwen2 qwen3 qwen2_moe qwen3_moe qwen2moe qwen3moe gemma "
        "gemma2 gemma3 gemma3_text gpt2 gpt_neo gpt_neox gptneox gptj gpt_oss gpt-oss opt bloom "
        "mpt phi phi2 phi3 phi4 phimoe falcon falcon_h1 mamba mamba2 rwkv starcoder starcoder2 "
        "codegen cohere cohere2 command-r olmo olmo2 olmoe stablelm internlm2 baichuan chatglm glm "
        "glm4 granite deepseek deepseek2 deepseek_v2 deepseek_v3 smollm3 exaone lfm2 minicpm "
        "nemotron bitnet xglm ctrl"
    ),
    "sentence encoders": (
        "bert roberta xlm-roberta distilbert mpnet albert electra deberta deberta-v2 camembert "
        "modernbert nomic_bert nomic-bert jina-bert-v2 new xlnet xlm mobilebert convbert funnel "
        "big_bird longformer squeezebert ernie layoutlm flaubert luke"
    ),
    "text to text": "t5 mt5 umt5 bart mbart marian m2m_100 pegasus led longt5 blenderbot",
    "speech": "whisper wav2vec2 hubert wavlm speecht5 speech_to_text unispeech sew bark vits",
    "images": (
        "vit deit beit swin swinv2 convnext resnet detr clip siglip siglip2 blip blip-2 dinov2 "
        "segformer mobilevit sam vilt llava qwen2_vl paligemma"
    ),
}
_KIND_OF: Mapping[str, str] = {
    name: kind for kind, names in _TYPES.items() for name in names.split()
}
_TASK_OF = {
    "text generation": "generate",
    "sentence encoders": "embed",
    "text to text": "transform",
    "speech": "transcribe",
    "images": "see",
}


def kind_of_type(name: str) -> str:
    """Return what models of that type do, from the table above; empty for an unknown one."""
    return _KIND_OF.get(name, "")


def unsupported_type(
    place: str, key: str, value: object, families: Sequence[AnyFamily]
) -> UnsupportedModelError:
    """Return the error for an unsupported model_type or architecture.

    It lists which of the `families` of the same kind are supported, or all if none is.
    """
    if value is None:
        return UnsupportedModelError(place, f"it has no {key}", hint=_all(families))
    name = str(value)[:40]
    kind = _KIND_OF.get(name)
    if kind is None:
        hint = _all(families)
    elif kind in _TASK_OF:
        hint = f"Of its kind ({kind}) these run: {_of_kind(kind, families)}."
    else:
        hint = f"No model of its kind ({kind}) runs yet. {_all(families)}"
    return UnsupportedModelError(place, f"its {key} is {name!r}, which does not run", hint=hint)


def _all(families: Sequence[AnyFamily]) -> str:
    return " ".join(f"{k[0].upper()}{k[1:]}: {_of_kind(k, families)}." for k in _TASK_OF)


def _of_kind(kind: str, families: Sequence[AnyFamily]) -> str:
    """List the families of a kind by the files that they are read from."""
    results: dict[str, list[str]] = {}
    for family in families:
        if _TASK_OF[kind] == family.tasks[0]:
            results.setdefault(_files(family), []).append(f"{family.name} ({family.examples})")
    return "; ".join(f"{', '.join(named)}, {files}" for files, named in results.items())


def _files(family: AnyFamily) -> str:
    if not isinstance(family, DecoderFamily) or not family.architectures:
        return "as a folder"
    return "as a folder or a GGUF file"
