"""The names of the guides that Bascule follows: each imports and has what its guide calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bascule

TIERS = Path(__file__).resolve().parent.parent / "docs" / "tiers.md"
# Every name that a guide imports or lists, with the attributes that the guide calls on it.
NAMES = {
    "FallbackManager": ("needs_fallback run_with_fallback get_performance_metrics reset_metrics"),
    "SafariWebGPUFallback": (
        "needs_fallback execute_with_fallback _parse_safari_version _detect_metal_features"
    ),
    "create_optimal_fallback_strategy": "",
    "UnifiedWebPlatform": (
        "load_model run_inference post_process_result run_inference_optimized get_memory_usage "
        "set_memory_optimization_level"
    ),
    "ComputeShaderManager": "get_shader execute_shader",
    "StreamingInferencePipeline": "",
    "ShaderPrecompiler": "",
    "ModelSpecificPrecompiler": "",
    "ProgressiveModelLoader": "",
    "ParallelMultimodalLoader": "",
    "AudioComputeOptimizer": "",
    "WebGPUQuantizer": "",
    "WebGPUMemoryOptimizer": "",
    "WebGPUDebugger": "capture_shader_trace analyze_shader_performance export_debug_report",
    "PerformanceMonitor": "stop_and_get_report generate_performance_visualization",
    "HardwareCompatibilityReporter": (
        "check_components collect_hardware_detection_errors collect_resource_pool_errors "
        "collect_model_integration_errors test_full_hardware_stack generate_report "
        "generate_compatibility_matrix"
    ),
    "ResourcePool": "",
    "BitNetMPSManager": (
        "new new_with_fallback_strategy execute_with_recovery validate_operation_requirements "
        "system_info matrix_ops is_ane_available ane_integration"
    ),
    "FallbackStrategy": (
        "enable_cpu_fallback enable_metal_fallback max_retry_attempts retry_delay "
        "monitor_fallback_performance"
    ),
    "MPSErrorRecovery": "handle_error get_recovery_stats validate_capabilities",
    "MPSCapabilities": "",
    "MPSError": "",
    "MPSSystemInfo": "",
    "CapabilityRequirements": (
        "neural_network_support matrix_multiplication convolution_support graph_api "
        "minimum_memory_mb ane_support"
    ),
    "DeviceCompatibilityChecker": "is_mps_available is_ane_available get_platform_info",
    "PlatformInfo": "mps_available mps_feature_enabled",
    "ANECapabilities": "meets_requirements get_requirement_mismatch compatibility_score",
    "ANEDataType": "Float16 Int8",
    "RecoveryAction": "",
    "RecoveryStats": "recent_errors",
    "select_optimal_backend": "",
    "IntelligentBackendSelector": (
        "select_backend execute_with_monitoring get_performance_summary reset_performance_history"
    ),
    "WorkloadCharacteristics": (
        "operation_type data_size data_shape requires_gradient is_iterative dtype_size"
    ),
    "BackendType": "TORCH JAX NUMBA NUMPY",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_imports_and_has_what_its_guide_calls(name: str) -> None:
    result = getattr(bascule, name)
    fields = getattr(result, "__dataclass_fields__", {})
    lacks = [each for each in NAMES[name].split() if each not in fields]
    assert [each for each in lacks if not hasattr(result, each)] == []


def test_names_that_are_not_here_are_explained() -> None:
    table = TIERS.read_text("utf-8").split("| there | instead |\n")[1]
    cells = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    absent = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert {"WebGPUBackend", "ErrorHandler", "GPUConfig"} <= set(absent)
    assert [name for name in absent if hasattr(bascule, name)] == []


def test_the_managers_own_constructors() -> None:
    strategy = bascule.FallbackStrategy(max_retry_attempts=1, retry_delay=0)
    manager = bascule.BitNetMPSManager.new_with_fallback_strategy(strategy)
    assert isinstance(manager.error_recovery, bascule.MPSErrorRecovery)
    assert manager.error_recovery.strategy is strategy
    plain = bascule.BitNetMPSManager.new()
    assert plain.error_recovery.strategy == bascule.FallbackStrategy()


def test_a_script_need_not_await_a_check() -> None:
    manager = bascule.BitNetMPSManager.new()
    info = manager.system_info()
    assert isinstance(info, bascule.MPSSystemInfo)
    met = bascule.CapabilityRequirements(matrix_multiplication=True)
    assert isinstance(manager.validate_operation_requirements(met), bascule.MPSCapabilities)
    unmet = bascule.CapabilityRequirements(minimum_memory_mb=1 << 40)
    with pytest.raises(bascule.CapabilityMismatchError, match="minimum_memory_mb"):
        manager.validate_operation_requirements(unmet)
    with pytest.raises(bascule.CapabilityMismatchError, match="minimum_memory_mb"):
        manager.error_recovery.validate_capabilities(info, unmet, "this one")
