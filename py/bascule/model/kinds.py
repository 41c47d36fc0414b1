"""What kind of model a model_type or a GGUF architecture is, and what runs of each kind."""

from __future__ import annotations

from collections.abc import Mapping

from bascule.errors import UnsupportedModelError

# Hugging Face's model types that are often asked for, by what the models do.
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
_LLAMA = "llama (such as SmolLM2, TinyLlama, Llama 3)"
_RUNS: Mapping[str, str] = {
    "text generation": f"{_LLAMA}, as a folder or a GGUF file",
    "sentence encoders": "bert (such as all-MiniLM-L6-v2, bge, gte, e5), as a folder",
}


def unsupported_type(place: str, key: str, found: object) -> UnsupportedModelError:
    """Return the error for a model_type, or an architecture, that does not run.

    It says what does of the same kind, or of all kinds if nothing does.
    """
    if found is None:
        return UnsupportedModelError(place, f"it has no {key}", hint=_all())
    name = str(found)[:40]
    kind = _KIND_OF.get(name)
    if kind is None:
        hint = _all()
    elif kind in _RUNS:
        hint = f"Of its kind ({kind}) these run: {_RUNS[kind]}."
    else:
        hint = f"No model of its kind ({kind}) runs yet. {_all()}"
    return UnsupportedModelError(place, f"its {key} is {name!r}, which does not run", hint=hint)


def _all() -> str:
    return "These run: " + "; ".join(f"{kind}: {runs}" for kind, runs in _RUNS.items()) + "."
