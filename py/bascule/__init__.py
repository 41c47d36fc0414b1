"""Bascule: GPU compute and model inference for Python, in a web page and outside one.

The names below are the public ones. They are imported when first used, so that `import bascule`
costs nothing and a part of the package works where numpy is absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bascule.errors import BackendsFailedError as BackendsFailedError
    from bascule.errors import BasculeError as BasculeError
    from bascule.loading import MultimodalModel as MultimodalModel
    from bascule.loading import ParallelMultimodalLoader as ParallelMultimodalLoader
    from bascule.loading import ProgressiveModelLoader as ProgressiveModelLoader
    from bascule.model.embedder import EmbeddingModel as EmbeddingModel
    from bascule.model.language import LanguageModel as LanguageModel
    from bascule.model.sampler import Sampling as Sampling
    from bascule.platform import UnifiedWebPlatform as UnifiedWebPlatform
    from bascule.platform import load as load
    from bascule.precompile import ModelSpecificPrecompiler as ModelSpecificPrecompiler
    from bascule.precompile import ShaderPrecompiler as ShaderPrecompiler
    from bascule.progress import Progress as Progress
    from bascule.quantizer import QuantizedTensor as QuantizedTensor
    from bascule.quantizer import WebGPUQuantizer as WebGPUQuantizer
    from bascule.streaming import StreamingInferencePipeline as StreamingInferencePipeline
    from bascule.tiers.auto import open_tier as open_tier
    from bascule.tiers.selector import IntelligentBackendSelector as IntelligentBackendSelector
    from bascule.tiers.selector import select_optimal_backend as select_optimal_backend
    from bascule.tiers.workload import BackendType as BackendType
    from bascule.tiers.workload import WorkloadCharacteristics as WorkloadCharacteristics
    from bascule.waiting import sync as sync
    from bascule.weights.quantised import QuantizationReport as QuantizationReport

__version__ = "0.1.0"

_HOMES = {
    "BackendType": "bascule.tiers.workload",
    "BackendsFailedError": "bascule.errors",
    "BasculeError": "bascule.errors",
    "EmbeddingModel": "bascule.model.embedder",
    "IntelligentBackendSelector": "bascule.tiers.selector",
    "LanguageModel": "bascule.model.language",
    "ModelSpecificPrecompiler": "bascule.precompile",
    "MultimodalModel": "bascule.loading",
    "ParallelMultimodalLoader": "bascule.loading",
    "Progress": "bascule.progress",
    "ProgressiveModelLoader": "bascule.loading",
    "QuantizationReport": "bascule.weights.quantised",
    "QuantizedTensor": "bascule.quantizer",
    "Sampling": "bascule.model.sampler",
    "ShaderPrecompiler": "bascule.precompile",
    "StreamingInferencePipeline": "bascule.streaming",
    "UnifiedWebPlatform": "bascule.platform",
    "WebGPUQuantizer": "bascule.quantizer",
    "WorkloadCharacteristics": "bascule.tiers.workload",
    "load": "bascule.platform",
    "open_tier": "bascule.tiers.auto",
    "select_optimal_backend": "bascule.tiers.selector",
    "sync": "bascule.waiting",
}

__all__ = [
    "BackendType",
    "BackendsFailedError",
    "BasculeError",
    "EmbeddingModel",
    "IntelligentBackendSelector",
    "LanguageModel",
    "ModelSpecificPrecompiler",
    "MultimodalModel",
    "ParallelMultimodalLoader",
    "Progress",
    "ProgressiveModelLoader",
    "QuantizationReport",
    "QuantizedTensor",
    "Sampling",
    "ShaderPrecompiler",
    "StreamingInferencePipeline",
    "UnifiedWebPlatform",
    "WebGPUQuantizer",
    "WorkloadCharacteristics",
    "load",
    "open_tier",
    "select_optimal_backend",
    "sync",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bascule' has no attribute {name!r}")
    return getattr(import_module(home), name)
