"""Bascule: GPU compute and model inference for Python, in a web page and outside one.

The public names are below; `__init__.pyi` lists them for type checkers. They are imported on first
use, so `import bascule` costs nothing and parts of the package work without numpy; so are the
modules `bascule.array`, `bascule.cache` and `bascule.errors`. Classes that only these names return
are in modules of their own.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "bascule.kernels.buffer": "DeviceBuffer",
    "bascule.base.page_settings": "configure",
    "bascule.base.progress": "Progress",
    "bascule.base.waiting": "sync",
    "bascule.device.device": "Device open_device",
    "bascule.device.loading": "load",
    "bascule.errors": "BasculeError InputError TierUnavailableError",
    "bascule.kernels.elementwise": "elementwise",
    "bascule.kernels.kernel": "Kernel",
    "bascule.kernels.reduction": "reduce",
    "bascule.machine.capabilities": "Capabilities capabilities",
    "bascule.machine.pressure": "open_pressure",
    "bascule.pipelines.pipeline": "pipeline",
    "bascule.search.index": "Index",
    "bascule.tasks.classifier": "ClassifierModel",
    "bascule.tasks.embedder": "EmbeddingModel",
    "bascule.tasks.image_text": "ImageTextModel",
    "bascule.tasks.images": "ImageModel",
    "bascule.tasks.language": "LanguageModel",
    "bascule.tasks.sampler": "Sampling",
    "bascule.tasks.speech": "SpeechModel",
    "bascule.tasks.text_to_text": "TextToTextModel",
}
# Other names of the API of `bascule.compat` and its enums.
_SEEDS = {
    "bascule.backend.tiers": "BackendType",
    "bascule.choosing.workload": "WorkloadCharacteristics",
    "bascule.compat.accelerator": "ANECapabilities ANEDataType",
    "bascule.compat.audio": "AudioComputeOptimizer",
    "bascule.compat.error_policy": (
        "Attempt ErrorKind ErrorRecovery FallbackStrategy RecoveryAction RecoveryStats"
    ),
    "bascule.compat.fallback.manager": (
        "FallbackManager SafariWebGPUFallback create_optimal_fallback_strategy"
    ),
    "bascule.compat.loaders": "MultimodalModel ParallelMultimodalLoader ProgressiveModelLoader",
    "bascule.compat.matrix_ops": "MatrixOps",
    "bascule.compat.memory_optimizer": "WebGPUMemoryOptimizer",
    "bascule.compat.memory_plan": "MemoryStrategy",
    "bascule.compat.model_family": "ModelFamily classify_model",
    "bascule.compat.mps": (
        "BitNetMPSManager MPSCapabilities MPSError MPSErrorRecovery MPSSystemInfo"
    ),
    "bascule.compat.platform": "UnifiedWebPlatform",
    "bascule.compat.platform_info": "DeviceCompatibilityChecker PlatformInfo",
    "bascule.compat.precompile": "ModelSpecificPrecompiler ShaderPrecompiler",
    "bascule.compat.quantizer": "QuantizedTensor WebGPUQuantizer",
    "bascule.compat.recovery": "RecoveryManager",
    "bascule.compat.resource_pool": "PoolStats ResourcePool",
    "bascule.compat.selector": "IntelligentBackendSelector select_optimal_backend",
    "bascule.compat.shader_manager": "ComputeShaderManager ManagedShader",
    "bascule.compat.streaming": "StreamingInferencePipeline",
    "bascule.errors": "BackendsFailedError BudgetError CapabilityMismatch CapabilityMismatchError",
    "bascule.machine.browsers": "browser_features",
    "bascule.machine.requirements": (
        "CapabilityRequirements compatibility_score get_requirement_mismatch "
        "meets_requirements validate_capabilities validate_operation_requirements"
    ),
    "bascule.observe.compatibility": "HardwareCompatibilityReporter",
    "bascule.observe.debugger": "WebGPUDebugger",
    "bascule.observe.monitor": "PerformanceMonitor",
    "bascule.observe.performance": "PerformanceReport",
    "bascule.machine.safari": "SafariSupport safari_capabilities safari_support",
}
_MODULES = frozenset({"array", "cache", "errors"})
_HOMES = {
    name: home
    for table in (_PUBLIC, _SEEDS)
    for home, names in table.items()
    for name in names.split()
}

__all__ = sorted(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"bascule.{name}")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'bascule' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
