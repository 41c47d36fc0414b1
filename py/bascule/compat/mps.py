"""The readiness guide's names for recovery, requirements and capabilities.

The guide describes Metal Performance Shaders in Rust. Bascule uses neither those nor the Apple
Neural Engine: on Apple's machines its GPU tier is WebGPU, which runs on Metal. The names do the
same on every machine.
"""

from __future__ import annotations

from typing import Self

from bascule.compat.error_policy import ErrorRecovery, FallbackStrategy
from bascule.compat.recovery import RecoveryManager
from bascule.errors import BasculeError
from bascule.machine.capabilities import Capabilities

MPSCapabilities = Capabilities
MPSError = BasculeError
MPSErrorRecovery = ErrorRecovery
MPSSystemInfo = Capabilities


class BitNetMPSManager(RecoveryManager):
    """`RecoveryManager` with the constructors of the readiness guide; it needs no Apple machine.

    `error_recovery` is an attribute; in the guide it is a method.
    """

    @classmethod
    def new(cls) -> Self:
        """Use the default strategy, as `BitNetMPSManager()`."""
        return cls()

    @classmethod
    def new_with_fallback_strategy(cls, strategy: FallbackStrategy) -> Self:
        """Use another strategy, as `BitNetMPSManager(strategy)`."""
        return cls(strategy)
