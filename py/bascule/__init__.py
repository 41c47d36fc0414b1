"""Bascule: GPU compute and model inference for Python, in a web page and outside one.

The names below are the public ones. They are imported when first used, so that `import bascule`
costs nothing and a part of the package works where numpy is absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bascule.device.buffer import DeviceBuffer as DeviceBuffer
    from bascule.device.device import Device as Device
    from bascule.device.device import open_device as open_device
    from bascule.device.loading import load as load
    from bascule.errors import BackendsFailedError as BackendsFailedError
    from bascule.errors import BasculeError as BasculeError
    from bascule.errors import CapabilityMismatchError as CapabilityMismatchError
    from bascule.errors import ContextLengthError as ContextLengthError
    from bascule.errors import DeviceLostError as DeviceLostError
    from bascule.errors import FileChangedError as FileChangedError
    from bascule.errors import FileMissingError as FileMissingError
    from bascule.errors import GpuError as GpuError
    from bascule.errors import GpuOutOfMemoryError as GpuOutOfMemoryError
    from bascule.errors import HashMismatchError as HashMismatchError
    from bascule.errors import HostMemoryError as HostMemoryError
    from bascule.errors import InputError as InputError
    from bascule.errors import LimitError as LimitError
    from bascule.errors import ModelFileError as ModelFileError
    from bascule.errors import ModelNotFoundError as ModelNotFoundError
    from bascule.errors import NotFiniteError as NotFiniteError
    from bascule.errors import SetupError as SetupError
    from bascule.errors import ShaderError as ShaderError
    from bascule.errors import SourceError as SourceError
    from bascule.errors import TierUnavailableError as TierUnavailableError
    from bascule.errors import UnsupportedModelError as UnsupportedModelError
    from bascule.errors import WebNnError as WebNnError
    from bascule.errors import WrongResultError as WrongResultError
    from bascule.loading import MultimodalModel as MultimodalModel
    from bascule.loading import ParallelMultimodalLoader as ParallelMultimodalLoader
    from bascule.loading import ProgressiveModelLoader as ProgressiveModelLoader
    from bascule.model.classifications import Classification as Classification
    from bascule.model.classifications import Ranked as Ranked
    from bascule.model.classifications import Ranking as Ranking
    from bascule.model.classifier import ClassifierModel as ClassifierModel
    from bascule.model.embedder import EmbeddingModel as EmbeddingModel
    from bascule.model.embeddings import Embeddings as Embeddings
    from bascule.model.language import LanguageModel as LanguageModel
    from bascule.model.proof import Proof as Proof
    from bascule.model.sampler import Sampling as Sampling
    from bascule.page_settings import configure as configure
    from bascule.platform import UnifiedWebPlatform as UnifiedWebPlatform
    from bascule.precompile import ModelSpecificPrecompiler as ModelSpecificPrecompiler
    from bascule.precompile import ShaderPrecompiler as ShaderPrecompiler
    from bascule.progress import Progress as Progress
    from bascule.quantizer import QuantizedTensor as QuantizedTensor
    from bascule.quantizer import WebGPUQuantizer as WebGPUQuantizer
    from bascule.streaming import StreamingInferencePipeline as StreamingInferencePipeline
    from bascule.tiers.capabilities import Capabilities as Capabilities
    from bascule.tiers.capabilities import capabilities as capabilities
    from bascule.tiers.error_policy import Attempt as Attempt
    from bascule.tiers.error_policy import ErrorKind as ErrorKind
    from bascule.tiers.error_policy import ErrorRecovery as ErrorRecovery
    from bascule.tiers.error_policy import FallbackStrategy as FallbackStrategy
    from bascule.tiers.error_policy import RecoveryAction as RecoveryAction
    from bascule.tiers.error_policy import RecoveryStats as RecoveryStats
    from bascule.tiers.fallback import FallbackManager as FallbackManager
    from bascule.tiers.fallback import SafariWebGPUFallback as SafariWebGPUFallback
    from bascule.tiers.fallback import (
        create_optimal_fallback_strategy as create_optimal_fallback_strategy,
    )
    from bascule.tiers.pressure import open_pressure as open_pressure
    from bascule.tiers.recovery import RecoveryManager as RecoveryManager
    from bascule.tiers.requirements import CapabilityMismatch as CapabilityMismatch
    from bascule.tiers.requirements import CapabilityRequirements as CapabilityRequirements
    from bascule.tiers.requirements import compatibility_score as compatibility_score
    from bascule.tiers.requirements import get_requirement_mismatch as get_requirement_mismatch
    from bascule.tiers.requirements import meets_requirements as meets_requirements
    from bascule.tiers.requirements import validate_capabilities as validate_capabilities
    from bascule.tiers.requirements import (
        validate_operation_requirements as validate_operation_requirements,
    )
    from bascule.tiers.safari import SafariSupport as SafariSupport
    from bascule.tiers.safari import safari_capabilities as safari_capabilities
    from bascule.tiers.safari import safari_support as safari_support
    from bascule.tiers.selector import IntelligentBackendSelector as IntelligentBackendSelector
    from bascule.tiers.selector import select_optimal_backend as select_optimal_backend
    from bascule.tiers.workload import BackendType as BackendType
    from bascule.tiers.workload import WorkloadCharacteristics as WorkloadCharacteristics
    from bascule.waiting import sync as sync
    from bascule.weights.quantised import QuantizationReport as QuantizationReport

__version__ = "0.1.0"

_HOMES = {
    "Attempt": "bascule.tiers.error_policy",
    "BackendType": "bascule.tiers.workload",
    "BackendsFailedError": "bascule.errors",
    "BasculeError": "bascule.errors",
    "Capabilities": "bascule.tiers.capabilities",
    "CapabilityMismatch": "bascule.tiers.requirements",
    "CapabilityMismatchError": "bascule.errors",
    "CapabilityRequirements": "bascule.tiers.requirements",
    "Classification": "bascule.model.classifications",
    "ClassifierModel": "bascule.model.classifier",
    "ContextLengthError": "bascule.errors",
    "Device": "bascule.device.device",
    "DeviceBuffer": "bascule.device.buffer",
    "DeviceLostError": "bascule.errors",
    "EmbeddingModel": "bascule.model.embedder",
    "Embeddings": "bascule.model.embeddings",
    "ErrorKind": "bascule.tiers.error_policy",
    "ErrorRecovery": "bascule.tiers.error_policy",
    "FallbackManager": "bascule.tiers.fallback",
    "FallbackStrategy": "bascule.tiers.error_policy",
    "FileChangedError": "bascule.errors",
    "FileMissingError": "bascule.errors",
    "GpuError": "bascule.errors",
    "GpuOutOfMemoryError": "bascule.errors",
    "HashMismatchError": "bascule.errors",
    "HostMemoryError": "bascule.errors",
    "InputError": "bascule.errors",
    "IntelligentBackendSelector": "bascule.tiers.selector",
    "LanguageModel": "bascule.model.language",
    "LimitError": "bascule.errors",
    "ModelFileError": "bascule.errors",
    "ModelNotFoundError": "bascule.errors",
    "ModelSpecificPrecompiler": "bascule.precompile",
    "MultimodalModel": "bascule.loading",
    "NotFiniteError": "bascule.errors",
    "ParallelMultimodalLoader": "bascule.loading",
    "Progress": "bascule.progress",
    "ProgressiveModelLoader": "bascule.loading",
    "Proof": "bascule.model.proof",
    "QuantizationReport": "bascule.weights.quantised",
    "QuantizedTensor": "bascule.quantizer",
    "Ranked": "bascule.model.classifications",
    "Ranking": "bascule.model.classifications",
    "RecoveryAction": "bascule.tiers.error_policy",
    "RecoveryManager": "bascule.tiers.recovery",
    "RecoveryStats": "bascule.tiers.error_policy",
    "SafariSupport": "bascule.tiers.safari",
    "SafariWebGPUFallback": "bascule.tiers.fallback",
    "Sampling": "bascule.model.sampler",
    "SetupError": "bascule.errors",
    "ShaderError": "bascule.errors",
    "ShaderPrecompiler": "bascule.precompile",
    "SourceError": "bascule.errors",
    "StreamingInferencePipeline": "bascule.streaming",
    "TierUnavailableError": "bascule.errors",
    "UnifiedWebPlatform": "bascule.platform",
    "UnsupportedModelError": "bascule.errors",
    "WebGPUQuantizer": "bascule.quantizer",
    "WebNnError": "bascule.errors",
    "WorkloadCharacteristics": "bascule.tiers.workload",
    "WrongResultError": "bascule.errors",
    "capabilities": "bascule.tiers.capabilities",
    "compatibility_score": "bascule.tiers.requirements",
    "configure": "bascule.page_settings",
    "create_optimal_fallback_strategy": "bascule.tiers.fallback",
    "get_requirement_mismatch": "bascule.tiers.requirements",
    "load": "bascule.device.loading",
    "meets_requirements": "bascule.tiers.requirements",
    "open_device": "bascule.device.device",
    "open_pressure": "bascule.tiers.pressure",
    "safari_capabilities": "bascule.tiers.safari",
    "safari_support": "bascule.tiers.safari",
    "select_optimal_backend": "bascule.tiers.selector",
    "sync": "bascule.waiting",
    "validate_capabilities": "bascule.tiers.requirements",
    "validate_operation_requirements": "bascule.tiers.requirements",
}

__all__ = [
    "Attempt",
    "BackendType",
    "BackendsFailedError",
    "BasculeError",
    "Capabilities",
    "CapabilityMismatch",
    "CapabilityMismatchError",
    "CapabilityRequirements",
    "Classification",
    "ClassifierModel",
    "ContextLengthError",
    "Device",
    "DeviceBuffer",
    "DeviceLostError",
    "EmbeddingModel",
    "Embeddings",
    "ErrorKind",
    "ErrorRecovery",
    "FallbackManager",
    "FallbackStrategy",
    "FileChangedError",
    "FileMissingError",
    "GpuError",
    "GpuOutOfMemoryError",
    "HashMismatchError",
    "HostMemoryError",
    "InputError",
    "IntelligentBackendSelector",
    "LanguageModel",
    "LimitError",
    "ModelFileError",
    "ModelNotFoundError",
    "ModelSpecificPrecompiler",
    "MultimodalModel",
    "NotFiniteError",
    "ParallelMultimodalLoader",
    "Progress",
    "ProgressiveModelLoader",
    "Proof",
    "QuantizationReport",
    "QuantizedTensor",
    "Ranked",
    "Ranking",
    "RecoveryAction",
    "RecoveryManager",
    "RecoveryStats",
    "SafariSupport",
    "SafariWebGPUFallback",
    "Sampling",
    "SetupError",
    "ShaderError",
    "ShaderPrecompiler",
    "SourceError",
    "StreamingInferencePipeline",
    "TierUnavailableError",
    "UnifiedWebPlatform",
    "UnsupportedModelError",
    "WebGPUQuantizer",
    "WebNnError",
    "WorkloadCharacteristics",
    "WrongResultError",
    "capabilities",
    "compatibility_score",
    "configure",
    "create_optimal_fallback_strategy",
    "get_requirement_mismatch",
    "load",
    "meets_requirements",
    "open_device",
    "open_pressure",
    "safari_capabilities",
    "safari_support",
    "select_optimal_backend",
    "sync",
    "validate_capabilities",
    "validate_operation_requirements",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bascule' has no attribute {name!r}")
    return getattr(import_module(home), name)
