"""Model folders as sentence encoders come in the wild, each a variant of tiny-bert.

`CASES` lists them; `build` writes one. make_module_goldens.py runs sentence-transformers on those
that it can embed with, tests/tasks/test_module_folders.py runs Bascule on all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

HERE = Path(__file__).resolve().parent
GOLDENS = HERE / "modules.npz"
TEXTS = [
    "w4",
    "w5 w6 w98",
    " ".join(f"w{4 + i % 95}" for i in range(45)),
    "w50 unknown W51 w52",
    "w7 w7 w7 w8 w9 w10 w11 w12 w13 w14",
    "",
]
_C = 35
_KIND = "sentence_transformers.models"
_NEW = "sentence_transformers.sentence_transformer.modules"
Arrays = dict[str, "np.ndarray[Any, Any]"]


@dataclass(frozen=True)
class Case:
    """A folder: changes of config.json, further files, tensors; and a call of `embed`.

    `modules` are (type, folder) after the Transformer; None: no modules.json. A file that is None
    is deleted, a dict or list is written as JSON. `refused` is what the error has to say where the
    folder is not to be loaded.
    """

    name: str
    modules: tuple[tuple[str, str], ...] | None = ((f"{_KIND}.Pooling", "1_Pooling"),)
    pooling: Mapping[str, Any] = field(default_factory=lambda: {"pooling_mode": "mean"})
    config: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Any] = field(default_factory=dict)
    tensors: Callable[[Arrays], Arrays] | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""


def build(case: Case, folder: Path) -> None:
    """Write the folder of a case."""
    shutil.copytree(HERE / "tiny-bert", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **case.config}))
    files: dict[str, Any] = {"tokenizer_config.json": _TOKENIZER}
    if case.modules is not None:
        first = {"idx": 0, "name": "0", "path": "", "type": f"{_KIND}.Transformer"}
        rest = (
            {"idx": i, "name": str(i), "path": path, "type": kind}
            for i, (kind, path) in enumerate(case.modules, 1)
        )
        files["modules.json"] = [first, *rest]
        for kind, path in case.modules:
            if kind.endswith("Pooling"):
                files[f"{path}/config.json"] = {"word_embedding_dimension": _C, **case.pooling}
    for name, content in {**files, **case.files}.items():
        _write(folder / name, content)
    if case.tensors is not None:
        weights = case.tensors(load_file(folder / "model.safetensors"))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _write(path: Path, content: Any) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    if isinstance(content, Mapping) and all(isinstance(v, np.ndarray) for v in content.values()):
        save_file(dict(content), path, {"format": "pt"})
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(json.dumps(content))


_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")},
}


def _noise(*shape: int, seed: int = 5) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.3).astype(np.float32)


def _dense(folder: str, n_in: int, n_out: int, **settings: Any) -> dict[str, Any]:
    """The files of a Dense module."""
    weights = {"linear.weight": _noise(n_out, n_in)}
    if settings.get("bias", True):
        weights["linear.bias"] = _noise(n_out, seed=6)
    if settings.get("use_residual") and n_in != n_out:
        weights["residual.weight"] = _noise(n_out, n_in, seed=7)
    config = {"in_features": n_in, "out_features": n_out, "bias": True, **settings}
    return {f"{folder}/config.json": config, f"{folder}/model.safetensors": weights}


def _norm(folder: str, size: int) -> dict[str, Any]:
    weights = {"norm.weight": 1 + _noise(size), "norm.bias": _noise(size, seed=8)}
    return {f"{folder}/config.json": {"dimension": size}, f"{folder}/model.safetensors": weights}


def _old(*on: str) -> dict[str, bool]:
    """Pooling as sentence-transformers wrote it before 6."""
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens",
             "weightedmean_tokens", "lasttoken")  # fmt: skip
    return {f"pooling_mode_{name}": name in on for name in names}


def _renamed(change: Callable[[str], str]) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def _tf_names(name: str) -> str:
    name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
    return "bert." + name.replace("LayerNorm.bias", "LayerNorm.beta")


def _with(**more: np.ndarray[Any, Any]) -> Callable[[Arrays], Arrays]:
    return lambda tensors: {**tensors, **{k.replace("__", "."): v for k, v in more.items()}}


_POOL, _POOL6 = (f"{_KIND}.Pooling", "1_Pooling"), (f"{_NEW}.pooling.Pooling", "1_Pooling")
_DENSE, _NORM = (f"{_KIND}.Dense", "2_Dense"), (f"{_KIND}.LayerNorm", "2_LayerNorm")
_UNIT, _DROP = (f"{_KIND}.Normalize", "3_Normalize"), (f"{_KIND}.Dropout", "2_Dropout")
_ST = "config_sentence_transformers.json"
_SB = "sentence_bert_config.json"
_PROMPTS = {"prompts": {"query": "w20 w21 w22", "passage": "w30 "}}
_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_OLD_MODES = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens",
              "weightedmean_tokens", "lasttoken")  # fmt: skip
_TANH, _NN = "torch.nn.modules.activation.Tanh", "torch.nn.modules"
_TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
_SIX = {
    "transformer_task": "feature-extraction",
    "modality_config": _TEXT_ONLY,
    "module_output_name": "token_embeddings",
}


def _after_pooling(*more: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    return (_POOL, *more)


def _case_dense(name: str, n_out: int = 16, refused: str = "", **settings: Any) -> Case:
    files = _dense("2_Dense", _C, n_out, **settings)
    return Case(name, _after_pooling(_DENSE, _UNIT), files=files, refused=refused)


def _with_library(name: str, library: Mapping[str, Any], **more: Any) -> Case:
    return Case(name, files={_ST: library}, **more)


RIGHT = (
    Case("no modules.json", modules=None),
    Case("gelu_new", config={"hidden_act": "gelu_new"}),
    *(Case(f"pooling_mode {mode}", (_POOL6,), {"pooling_mode": mode}) for mode in _MODES),
    *(Case(f"old flag {mode}", pooling=_old(mode)) for mode in _OLD_MODES),
    Case("old flags all off", pooling=_old()),
    Case("two old flags", pooling=_old("cls_token", "mean_tokens")),
    Case("a list of modes", (_POOL6,), {"pooling_mode": ["mean", "max", "lasttoken"]}),
    Case("all modes at once", (_POOL6,), {"pooling_mode": list(_MODES)}),
    Case("the new key beside old flags", pooling={"pooling_mode": "cls", **_old("mean_tokens")}),
    Case("pooling in another folder", ((_POOL[0], "7_MyPooling"),), {"pooling_mode": "cls"}),
    Case("class paths of version 6", (_POOL6, (f"{_NEW}.normalize.Normalize", "2_Normalize"))),
    Case("normalized", _after_pooling(_UNIT)),
    Case("normalized, with settings", _after_pooling(_UNIT), files={"3_Normalize/config.json": {
        "module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}}),
    Case("tokens normalized first", ((_UNIT[0], "1_N"), (_POOL[0], "2_P")), files={
        "1_N/config.json": {"module_input_name": "token_embeddings"}}),
    Case("dropout", _after_pooling(_DROP), files={"2_Dropout/config.json": {"dropout": 0.5}}),
    _case_dense("dense", activation_function=_TANH),
    _case_dense("dense, activation not said"),
    _case_dense("dense without bias", bias=False, activation_function=_TANH),
    _case_dense("dense identity", activation_function=f"{_NN}.linear.Identity"),
    _case_dense("dense relu", activation_function=f"{_NN}.activation.ReLU"),
    _case_dense("dense gelu", activation_function=f"{_NN}.activation.GELU"),
    _case_dense("dense silu", activation_function=f"{_NN}.activation.SiLU"),
    _case_dense("dense wider", n_out=70, activation_function=_TANH),
    _case_dense("dense of block sizes", n_out=64, activation_function=_TANH),
    _case_dense("dense residual", n_out=_C, use_residual=True, activation_function=_TANH),
    _case_dense("dense projected residual", use_residual=True, activation_function=_TANH),
    Case("dense without normalize", _after_pooling(_DENSE), files=_dense("2_Dense", _C, 9)),
    Case("two dense", _after_pooling(_DENSE, (_DENSE[0], "3_Dense")),
         files={**_dense("2_Dense", _C, 24), **_dense("3_Dense", 24, 11)}),
    Case("dense on tokens", ((_DENSE[0], "1_Dense"), (_POOL[0], "2_Pooling")),
         files=_dense("1_Dense", _C, 12, module_input_name="token_embeddings")),
    Case("dense after two poolings", _after_pooling(_DENSE), _old("cls_token", "max_tokens"),
         files=_dense("2_Dense", 2 * _C, 16)),
    Case("layer norm", _after_pooling(_NORM), files=_norm("2_LayerNorm", _C)),
    Case("layer norm, dense, normalize", _after_pooling(_NORM, (_DENSE[0], "4_Dense"), _UNIT),
         files={**_norm("2_LayerNorm", _C), **_dense("4_Dense", _C, 20)}),
    _with_library("default prompt", {**_PROMPTS, "default_prompt_name": "query"}),
    _with_library("prompts without a default", _PROMPTS),
    _with_library("a prompt by name", _PROMPTS, call={"prompt_name": "passage"}),
    _with_library("an empty prompt by name", {"prompts": {}}, call={"prompt_name": "query"}),
    _with_library("a prompt of one's own", _PROMPTS, call={"prompt": "w88 w89 "}),
    _with_library("an empty prompt over the default",
                  {**_PROMPTS, "default_prompt_name": "query"}, call={"prompt": ""}),
    *(_with_library(f"prompt left out of {mode}", {**_PROMPTS, "default_prompt_name": "passage"},
                    pooling={"pooling_mode": mode, "include_prompt": False}) for mode in _MODES),
    Case("include_prompt false and no prompt", pooling={**_old("mean_tokens"),
                                                       "include_prompt": False}),
    _with_library("a long prompt left out", {"prompts": {"q": "w9 " * 60}},
                  pooling={"pooling_mode": "mean", "include_prompt": False},
                  call={"prompt_name": "q"}),
    _with_library("truncate_dim", {"truncate_dim": 12}),
    _with_library("truncate_dim past the end", {"truncate_dim": 99}, modules=(_POOL, _UNIT)),
    _with_library("keys of no effect", {"__version__": {"pytorch": "2"}, "prompts": {},
                  "default_prompt_name": None, "similarity_fn_name": "dot"}),
    Case("max_seq_length", files={_SB: {"max_seq_length": 7, "do_lower_case": False}}),
    Case("max_seq_length null", files={_SB: {"max_seq_length": None, "do_lower_case": False}}),
    Case("do_lower_case", files={_SB: {"max_seq_length": 40, "do_lower_case": True}}),
    Case("sentence_bert_config of version 6", files={_SB: _SIX}),
    Case("model_max_length", files={_SB: _SIX, "tokenizer_config.json": {
        **_TOKENIZER, "model_max_length": 6}}),
    Case("model_max_length past positions", files={"tokenizer_config.json": {
        **_TOKENIZER, "model_max_length": 512}}),
    Case("model_max_length without end", files={"tokenizer_config.json": {
        **_TOKENIZER, "model_max_length": 1e30}}),
    Case("max_seq_length over model_max_length", files={_SB: {"max_seq_length": 9},
         "tokenizer_config.json": {**_TOKENIZER, "model_max_length": 6}}),
    Case("model_max_length and no modules.json", modules=None, files={
        "tokenizer_config.json": {**_TOKENIZER, "model_max_length": 8}}),
    Case("tensors named bert.", tensors=_renamed("bert.{}".format)),
    Case("gamma and beta", tensors=_renamed(_tf_names), config={
        "architectures": ["BertForMaskedLM"]}),
    Case("a pooler and position_ids", tensors=_with(
        pooler__dense__weight=_noise(_C, _C), pooler__dense__bias=_noise(_C),
        embeddings__position_ids=np.arange(40, dtype=np.int64)[None])),
    Case("a language model's head", tensors=lambda t: {
        **_renamed("bert.{}".format)(t), "cls.predictions.bias": _noise(99)},
        config={"architectures": ["BertForMaskedLM"]}),
    Case("halves", tensors=lambda t: {k: v.astype(np.float16) for k, v in t.items()}),
    Case("another activation", config={"hidden_act": "relu"}),
    Case("architectures said", config={"architectures": ["BertModel"], "torch_dtype": "float32"}),
)  # fmt: skip


DENSE_OF_BLOCKS = Case(
    "dense of blocks",
    _after_pooling(_DENSE, (_DENSE[0], "3_Dense")),
    files={**_dense("2_Dense", _C, 64), **_dense("3_Dense", 64, 32)},
)


def _refused_module(kind: str, folder: str = "2_X") -> Case:
    name = kind.rsplit(".", 1)[-1]
    result = rf"{name}.*{folder}.*Transformer, Pooling, Dense, LayerNorm, Normalize"
    return Case(f"module {kind}", _after_pooling((kind, folder)), refused=result)


REFUSED = (
    *(_refused_module(f"{_KIND}.{kind}") for kind in ("CNN", "LSTM", "WeightedLayerPooling")),
    _refused_module("custom_st.Projection"),
    _refused_module("my_code.modeling.Normalize"),
    Case("no Transformer first", files={"modules.json": [
        {"type": f"{_KIND}.StaticEmbedding", "path": ""}]}, refused="StaticEmbedding"),
    Case("a Transformer in a folder", files={"modules.json": [
        {"type": f"{_KIND}.Transformer", "path": "0_BERT"}]}, refused="0_BERT"),
    Case("no pooling", (), refused="no Pooling"),
    Case("an unknown mode", pooling={"pooling_mode": "median"}, refused="median.*lasttoken"),
    Case("an unknown setting of pooling", pooling={"pooling_mode": "mean", "top": 3},
         refused="'top'"),
    Case("cls without modules.json", modules=None, files={
        "1_Pooling/config.json": {"pooling_mode": "cls"}}, refused="modules.json is missing"),
    Case("no pooling config", files={"1_Pooling/config.json": None}, refused="1_Pooling/config"),
    _case_dense("dense sigmoid", refused="Sigmoid.*Tanh",
                activation_function=f"{_NN}.activation.Sigmoid"),
    _case_dense("dense of own code", refused="my_code.Act.*Tanh",
                activation_function="my_code.Act"),
    Case("dense of another width", _after_pooling(_DENSE), files=_dense("2_Dense", 36, 16),
         refused="in_features is 36.*35"),
    Case("dense without weights", _after_pooling(_DENSE), files={
        "2_Dense/config.json": {"in_features": _C, "out_features": 3}}, refused="safetensors"),
    Case("dense with a tensor too many", _after_pooling(_DENSE), files={
        **_dense("2_Dense", _C, 3), "2_Dense/config.json": {
            "in_features": _C, "out_features": 3, "bias": False}}, refused="2_Dense/linear.bias"),
    Case("dense of another shape", _after_pooling(_DENSE), files={
        **_dense("2_Dense", _C, 3), "2_Dense/config.json": {
            "in_features": _C, "out_features": 4}}, refused="2_Dense/linear.weight"),
    Case("a cross-encoder without a pooler", modules=None, config={
        "architectures": ["BertForSequenceClassification"]}, refused="lacks the tensor 'pooler"),
    Case("the same by its tensors", modules=None, tensors=_with(
        classifier__weight=_noise(1, _C), classifier__bias=_noise(1)),
        refused="lacks the tensor 'pooler"),
    Case("a cross-encoder of the library", files={_ST: {"model_type": "CrossEncoder"}},
         refused="CrossEncoder"),
    Case("a sparse encoder", files={_ST: {"model_type": "SparseEncoder"}},
         refused="SparseEncoder"),
    Case("a question answerer", config={"architectures": ["BertForQuestionAnswering"]},
         refused="BertForQuestionAnswering"),
    Case("is_decoder", config={"is_decoder": True}, refused="is_decoder"),
    Case("cross attention", config={"add_cross_attention": True}, refused="add_cross_attention"),
    Case("an adapter", tensors=_with(
        encoder__layer__0__attention__self__query__lora_A__weight=_noise(4, _C)),
        refused="lora_A"),
    Case("fewer layers than the file", config={"num_hidden_layers": 1}, refused="encoder.layer.1"),
    Case("a task of another kind", files={_SB: {"transformer_task": "fill-mask"}},
         refused="transformer_task.*fill-mask"),
    Case("arguments of the model", files={_SB: {"model_args": {"num_hidden_layers": 1}}},
         refused="model_args"),
    Case("an unknown setting of the Transformer", files={_SB: {"reverse": True}},
         refused="'reverse'"),
    Case("a default prompt that is not there", files={_ST: {"default_prompt_name": "x"}},
         refused="default_prompt_name"),
    Case("relative positions", config={"position_embedding_type": "relative_key"},
         refused="position"),
    Case("quick_gelu", config={"hidden_act": "quick_gelu"}, refused="quick_gelu"),
)  # fmt: skip
