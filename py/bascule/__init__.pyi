# The public names for type checkers; tests/test_public_names.py holds them equal to __init__.py.
from bascule.backend.tiers import BackendType as BackendType
from bascule.base.page_settings import configure as configure
from bascule.base.progress import Progress as Progress
from bascule.base.waiting import sync as sync
from bascule.choosing.workload import WorkloadCharacteristics as WorkloadCharacteristics
from bascule.compat.accelerator import ANECapabilities as ANECapabilities
from bascule.compat.accelerator import ANEDataType as ANEDataType
from bascule.compat.audio import AudioComputeOptimizer as AudioComputeOptimizer
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
from bascule.compat.memory_optimizer import WebGPUMemoryOptimizer as WebGPUMemoryOptimizer
from bascule.compat.memory_plan import MemoryStrategy as MemoryStrategy
from bascule.compat.model_family import ModelFamily as ModelFamily
from bascule.compat.model_family import classify_model as classify_model
from bascule.compat.mps import BitNetMPSManager as BitNetMPSManager
from bascule.compat.mps import MPSCapabilities as MPSCapabilities
from bascule.compat.mps import MPSError as MPSError
from bascule.compat.mps import MPSErrorRecovery as MPSErrorRecovery
from bascule.compat.mps import MPSSystemInfo as MPSSystemInfo
from bascule.compat.platform import UnifiedWebPlatform as UnifiedWebPlatform
from bascule.compat.platform_info import DeviceCompatibilityChecker as DeviceCompatibilityChecker
from bascule.compat.platform_info import PlatformInfo as PlatformInfo
from bascule.compat.precompile import ModelSpecificPrecompiler as ModelSpecificPrecompiler
from bascule.compat.precompile import ShaderPrecompiler as ShaderPrecompiler
from bascule.compat.quantizer import QuantizedTensor as QuantizedTensor
from bascule.compat.quantizer import WebGPUQuantizer as WebGPUQuantizer
from bascule.compat.recovery import RecoveryManager as RecoveryManager
from bascule.compat.resource_pool import PoolStats as PoolStats
from bascule.compat.resource_pool import ResourcePool as ResourcePool
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
from bascule.errors import BudgetError as BudgetError
from bascule.errors import CapabilityMismatch as CapabilityMismatch
from bascule.errors import CapabilityMismatchError as CapabilityMismatchError
from bascule.errors import InputError as InputError
from bascule.errors import TierUnavailableError as TierUnavailableError
from bascule.kernels.buffer import DeviceBuffer as DeviceBuffer
from bascule.kernels.elementwise import elementwise as elementwise
from bascule.kernels.kernel import Kernel as Kernel
from bascule.kernels.reduction import reduce as reduce
from bascule.machine.browsers import browser_features as browser_features
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
from bascule.observe.compatibility import (
    HardwareCompatibilityReporter as HardwareCompatibilityReporter,
)
from bascule.observe.debugger import WebGPUDebugger as WebGPUDebugger
from bascule.observe.monitor import PerformanceMonitor as PerformanceMonitor
from bascule.observe.performance import PerformanceReport as PerformanceReport
from bascule.pipelines.pipeline import pipeline as pipeline
from bascule.search.index import Index as Index
from bascule.tasks.classifier import ClassifierModel as ClassifierModel
from bascule.tasks.embedder import EmbeddingModel as EmbeddingModel
from bascule.tasks.image_text import ImageTextModel as ImageTextModel
from bascule.tasks.images import ImageModel as ImageModel
from bascule.tasks.language import LanguageModel as LanguageModel
from bascule.tasks.sampler import Sampling as Sampling
from bascule.tasks.speech import SpeechModel as SpeechModel
from bascule.tasks.text_to_text import TextToTextModel as TextToTextModel

__version__: str
