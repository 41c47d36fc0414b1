"""The facts that a driver reports about its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Limits that kernels and the memory plan depend on; drivers request the adapter's own values.
WANTED_LIMITS = (
    "maxBufferSize",
    "maxStorageBufferBindingSize",
    "maxStorageBuffersPerShaderStage",
    "maxComputeWorkgroupStorageSize",
    "maxComputeInvocationsPerWorkgroup",
    "maxComputeWorkgroupSizeX",
    "maxComputeWorkgroupsPerDimension",
    "minStorageBufferOffsetAlignment",
    "minUniformBufferOffsetAlignment",
)
# The limits of a device for which none were requested (https://www.w3.org/TR/webgpu/#limits).
DEFAULT_LIMITS: Mapping[str, int] = {
    "maxBufferSize": 256 << 20,
    "maxStorageBufferBindingSize": 128 << 20,
    "maxStorageBuffersPerShaderStage": 8,
    "maxUniformBufferBindingSize": 64 << 10,
    "maxComputeWorkgroupStorageSize": 16 << 10,
    "maxComputeInvocationsPerWorkgroup": 256,
    "maxComputeWorkgroupSizeX": 256,
    "maxComputeWorkgroupSizeY": 256,
    "maxComputeWorkgroupSizeZ": 64,
    "maxComputeWorkgroupsPerDimension": 65535,
    "minStorageBufferOffsetAlignment": 256,
    "minUniformBufferOffsetAlignment": 256,
}


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """An adapter, with the features and limits of the device opened on it.

    `features` uses the names of the WebGPU specification on both drivers. `software` is true for
    adapters that run on the CPU (SwiftShader, lavapipe, WARP). `subgroups_enable` says that the
    shader compiler wants `enable subgroups;` before the builtins (Tint) instead of rejecting it.
    `identity` is a text that changes whenever a pipeline might behave differently: all of the above
    and the version of the browser or driver; it is only compared. `limited` means that the device
    was requested without features and with the default limits.
    """

    vendor: str
    architecture: str
    device: str
    description: str
    backend: str
    software: bool
    features: frozenset[str]
    limits: Mapping[str, int]
    subgroups_enable: bool = False
    identity: str = ""
    limited: bool = False

    @property
    def name(self) -> str:
        """Return one line for people, from the most informative fields."""
        return (
            self.description or self.device or f"{self.vendor} {self.architecture}".strip() or "GPU"
        )
