"""Bascule: GPU compute and model inference for Python, in a web page and outside one.

The names below are the public ones. They are imported when first used, so that `import bascule`
costs nothing and a part of the package works where numpy is absent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bascule.array.errors import ArrayIndexError as ArrayIndexError
    from bascule.array.errors import DTypeError as DTypeError
    from bascule.array.errors import MustAwaitError as MustAwaitError
    from bascule.array.errors import OutOfRangeError as OutOfRangeError
    from bascule.array.errors import ShapeError as ShapeError
    from bascule.base.page_settings import configure as configure
    from bascule.base.progress import Progress as Progress
    from bascule.base.waiting import sync as sync
    from bascule.choosing.workload import BackendType as BackendType
    from bascule.choosing.workload import WorkloadCharacteristics as WorkloadCharacteristics
    from bascule.compat.error_policy import Attempt as Attempt
    from bascule.compat.error_policy import ErrorKind as ErrorKind
    from bascule.compat.error_policy import ErrorRecovery as ErrorRecovery
    from bascule.compat.error_policy import FallbackStrategy as FallbackStrategy
    from bascule.compat.error_policy import RecoveryAction as RecoveryAction
    from bascule.compat.error_policy import RecoveryStats as RecoveryStats
    from bascule.compat.fallback.manager import FallbackManager as FallbackManager
    from bascule.compat.fallback.manager import SafariWebGPUFallback as SafariWebGPUFallback
    from bascule.compat.fallback.manager import (
        create_optimal_fallback_strategy as create_optimal_fallback_strategy,
    )
    from bascule.compat.loaders import MultimodalModel as MultimodalModel
    from bascule.compat.loaders import ParallelMultimodalLoader as ParallelMultimodalLoader
    from bascule.compat.loaders import ProgressiveModelLoader as ProgressiveModelLoader
    from bascule.compat.matrix_ops import MatrixOps as MatrixOps
    from bascule.compat.platform import UnifiedWebPlatform as UnifiedWebPlatform
    from bascule.compat.precompile import ModelSpecificPrecompiler as ModelSpecificPrecompiler
    from bascule.compat.precompile import ShaderPrecompiler as ShaderPrecompiler
    from bascule.compat.quantizer import QuantizedTensor as QuantizedTensor
    from bascule.compat.quantizer import WebGPUQuantizer as WebGPUQuantizer
    from bascule.compat.recovery import RecoveryManager as RecoveryManager
    from bascule.compat.selector import IntelligentBackendSelector as IntelligentBackendSelector
    from bascule.compat.selector import select_optimal_backend as select_optimal_backend
    from bascule.compat.shader_manager import ComputeShaderManager as ComputeShaderManager
    from bascule.compat.shader_manager import ManagedShader as ManagedShader
    from bascule.compat.streaming import StreamingInferencePipeline as StreamingInferencePipeline
    from bascule.device.device import Device as Device
    from bascule.device.device import open_device as open_device
    from bascule.device.loading import load as load
    from bascule.errors import BackendsFailedError as BackendsFailedError
    from bascule.errors import BasculeError as BasculeError
    from bascule.errors import CapabilityMismatch as CapabilityMismatch
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
    from bascule.kernels.buffer import DeviceBuffer as DeviceBuffer
    from bascule.kernels.elementwise import ElementwiseKernel as ElementwiseKernel
    from bascule.kernels.elementwise import elementwise as elementwise
    from bascule.kernels.kernel import Kernel as Kernel
    from bascule.kernels.recording import Recording as Recording
    from bascule.kernels.reduction import ReductionKernel as ReductionKernel
    from bascule.kernels.reduction import reduce as reduce
    from bascule.kernels.tuning import Tuning as Tuning
    from bascule.machine.capabilities import Capabilities as Capabilities
    from bascule.machine.capabilities import capabilities as capabilities
    from bascule.machine.pressure import open_pressure as open_pressure
    from bascule.machine.requirements import CapabilityRequirements as CapabilityRequirements
    from bascule.machine.requirements import compatibility_score as compatibility_score
    from bascule.machine.requirements import get_requirement_mismatch as get_requirement_mismatch
    from bascule.machine.requirements import meets_requirements as meets_requirements
    from bascule.machine.requirements import validate_capabilities as validate_capabilities
    from bascule.machine.requirements import (
        validate_operation_requirements as validate_operation_requirements,
    )
    from bascule.machine.safari import SafariSupport as SafariSupport
    from bascule.machine.safari import safari_capabilities as safari_capabilities
    from bascule.machine.safari import safari_support as safari_support
    from bascule.tasks.classifications import Classification as Classification
    from bascule.tasks.classifications import Ranked as Ranked
    from bascule.tasks.classifications import Ranking as Ranking
    from bascule.tasks.classifier import ClassifierModel as ClassifierModel
    from bascule.tasks.embedder import EmbeddingModel as EmbeddingModel
    from bascule.tasks.embeddings import Embeddings as Embeddings
    from bascule.tasks.language import LanguageModel as LanguageModel
    from bascule.tasks.proof import Proof as Proof
    from bascule.tasks.sampler import Sampling as Sampling
    from bascule.weights.quantised import QuantizationReport as QuantizationReport

__version__ = "0.1.0"

_HOMES = {
    "ArrayIndexError": "bascule.array.errors",
    "Attempt": "bascule.compat.error_policy",
    "BackendType": "bascule.choosing.workload",
    "BackendsFailedError": "bascule.errors",
    "BasculeError": "bascule.errors",
    "Capabilities": "bascule.machine.capabilities",
    "CapabilityMismatch": "bascule.errors",
    "CapabilityMismatchError": "bascule.errors",
    "CapabilityRequirements": "bascule.machine.requirements",
    "Classification": "bascule.tasks.classifications",
    "ClassifierModel": "bascule.tasks.classifier",
    "ComputeShaderManager": "bascule.compat.shader_manager",
    "ContextLengthError": "bascule.errors",
    "DTypeError": "bascule.array.errors",
    "Device": "bascule.device.device",
    "DeviceBuffer": "bascule.kernels.buffer",
    "DeviceLostError": "bascule.errors",
    "ElementwiseKernel": "bascule.kernels.elementwise",
    "EmbeddingModel": "bascule.tasks.embedder",
    "Embeddings": "bascule.tasks.embeddings",
    "ErrorKind": "bascule.compat.error_policy",
    "ErrorRecovery": "bascule.compat.error_policy",
    "FallbackManager": "bascule.compat.fallback.manager",
    "FallbackStrategy": "bascule.compat.error_policy",
    "FileChangedError": "bascule.errors",
    "FileMissingError": "bascule.errors",
    "GpuError": "bascule.errors",
    "GpuOutOfMemoryError": "bascule.errors",
    "HashMismatchError": "bascule.errors",
    "HostMemoryError": "bascule.errors",
    "InputError": "bascule.errors",
    "IntelligentBackendSelector": "bascule.compat.selector",
    "Kernel": "bascule.kernels.kernel",
    "LanguageModel": "bascule.tasks.language",
    "LimitError": "bascule.errors",
    "ManagedShader": "bascule.compat.shader_manager",
    "MatrixOps": "bascule.compat.matrix_ops",
    "ModelFileError": "bascule.errors",
    "ModelNotFoundError": "bascule.errors",
    "ModelSpecificPrecompiler": "bascule.compat.precompile",
    "MultimodalModel": "bascule.compat.loaders",
    "MustAwaitError": "bascule.array.errors",
    "NotFiniteError": "bascule.errors",
    "OutOfRangeError": "bascule.array.errors",
    "ParallelMultimodalLoader": "bascule.compat.loaders",
    "Progress": "bascule.base.progress",
    "ProgressiveModelLoader": "bascule.compat.loaders",
    "Proof": "bascule.tasks.proof",
    "QuantizationReport": "bascule.weights.quantised",
    "QuantizedTensor": "bascule.compat.quantizer",
    "Ranked": "bascule.tasks.classifications",
    "Ranking": "bascule.tasks.classifications",
    "Recording": "bascule.kernels.recording",
    "RecoveryAction": "bascule.compat.error_policy",
    "RecoveryManager": "bascule.compat.recovery",
    "RecoveryStats": "bascule.compat.error_policy",
    "ReductionKernel": "bascule.kernels.reduction",
    "SafariSupport": "bascule.machine.safari",
    "SafariWebGPUFallback": "bascule.compat.fallback.manager",
    "Sampling": "bascule.tasks.sampler",
    "SetupError": "bascule.errors",
    "ShaderError": "bascule.errors",
    "ShaderPrecompiler": "bascule.compat.precompile",
    "ShapeError": "bascule.array.errors",
    "SourceError": "bascule.errors",
    "StreamingInferencePipeline": "bascule.compat.streaming",
    "TierUnavailableError": "bascule.errors",
    "Tuning": "bascule.kernels.tuning",
    "UnifiedWebPlatform": "bascule.compat.platform",
    "UnsupportedModelError": "bascule.errors",
    "WebGPUQuantizer": "bascule.compat.quantizer",
    "WebNnError": "bascule.errors",
    "WorkloadCharacteristics": "bascule.choosing.workload",
    "WrongResultError": "bascule.errors",
    "capabilities": "bascule.machine.capabilities",
    "compatibility_score": "bascule.machine.requirements",
    "configure": "bascule.base.page_settings",
    "create_optimal_fallback_strategy": "bascule.compat.fallback.manager",
    "elementwise": "bascule.kernels.elementwise",
    "get_requirement_mismatch": "bascule.machine.requirements",
    "load": "bascule.device.loading",
    "meets_requirements": "bascule.machine.requirements",
    "open_device": "bascule.device.device",
    "open_pressure": "bascule.machine.pressure",
    "reduce": "bascule.kernels.reduction",
    "safari_capabilities": "bascule.machine.safari",
    "safari_support": "bascule.machine.safari",
    "select_optimal_backend": "bascule.compat.selector",
    "sync": "bascule.base.waiting",
    "validate_capabilities": "bascule.machine.requirements",
    "validate_operation_requirements": "bascule.machine.requirements",
}

__all__ = [
    "ArrayIndexError",
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
    "ComputeShaderManager",
    "ContextLengthError",
    "DTypeError",
    "Device",
    "DeviceBuffer",
    "DeviceLostError",
    "ElementwiseKernel",
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
    "Kernel",
    "LanguageModel",
    "LimitError",
    "ManagedShader",
    "MatrixOps",
    "ModelFileError",
    "ModelNotFoundError",
    "ModelSpecificPrecompiler",
    "MultimodalModel",
    "MustAwaitError",
    "NotFiniteError",
    "OutOfRangeError",
    "ParallelMultimodalLoader",
    "Progress",
    "ProgressiveModelLoader",
    "Proof",
    "QuantizationReport",
    "QuantizedTensor",
    "Ranked",
    "Ranking",
    "Recording",
    "RecoveryAction",
    "RecoveryManager",
    "RecoveryStats",
    "ReductionKernel",
    "SafariSupport",
    "SafariWebGPUFallback",
    "Sampling",
    "SetupError",
    "ShaderError",
    "ShaderPrecompiler",
    "ShapeError",
    "SourceError",
    "StreamingInferencePipeline",
    "TierUnavailableError",
    "Tuning",
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
    "elementwise",
    "get_requirement_mismatch",
    "load",
    "meets_requirements",
    "open_device",
    "open_pressure",
    "reduce",
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
