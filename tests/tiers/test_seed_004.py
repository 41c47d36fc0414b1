"""Every example of the guide that this selector comes from; only the import path is another one.

What the guide takes for granted (arrays, implementations of the operators, a layer's base class)
is given here as its reader would have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bascule import (
    BackendType,
    IntelligentBackendSelector,
    WorkloadCharacteristics,
    select_optimal_backend,
)
from bascule.compat.selector import shared_selector

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture(autouse=True)
def _fresh() -> None:
    shared_selector.cache_clear()


def compute_derivative(data: Array) -> Array:
    return np.gradient(data)


# Quick start


def test_basic_usage() -> None:
    backend = select_optimal_backend(
        operation_type="matmul", data_shape=(1000, 1000), requires_gradient=False
    )
    # Which one is fastest is this machine's affair, and changes with what else it does.
    considered = [c for c in shared_selector().decisions[-1].considered if not c.refused]
    assert backend.tier == min(considered, key=lambda c: c.expected_s).tier


def test_advanced_usage() -> None:
    selector = IntelligentBackendSelector(enable_learning=True)
    workload = WorkloadCharacteristics(
        operation_type="fft", data_size=1000000, data_shape=(1000, 1000), requires_gradient=False
    )
    backend = selector.select_backend(workload)
    assert isinstance(backend, BackendType)


def test_with_automatic_fallback() -> None:
    selector = IntelligentBackendSelector(enable_learning=True)
    data = np.linspace(0, 1, 1000)
    workload = WorkloadCharacteristics("derivative", data.size, data.shape)
    backend = selector.select_backend(workload)
    result = selector.execute_with_monitoring(
        operation_name="fractional_derivative",
        backend=backend,
        func=lambda: compute_derivative(data),
        workload=workload,
        fallback_backends=[BackendType.JAX, BackendType.NUMBA],
    )
    np.testing.assert_array_equal(result, compute_derivative(data))
    assert selector.get_performance_summary()["total_records"] == 1


# Integration examples


class FractionalDerivative:
    def __init__(self, alpha: float, method: str = "RL") -> None:
        self.alpha = alpha
        self.method = method
        self.backend_selector = IntelligentBackendSelector(enable_learning=True)

    def _get_implementation(self, backend: BackendType) -> Any:
        if backend == BackendType.JAX:
            raise RuntimeError("planted: this reader's JAX implementation is broken")
        return SimpleNamespace(compute=lambda f, x, **_: np.gradient(f(x) if callable(f) else f, x))

    def compute(self, f: Any, x: Any, **kwargs: Any) -> Any:
        x_array = np.asarray(x) if callable(f) else np.asarray(f)
        workload = WorkloadCharacteristics(
            operation_type="derivative",
            data_size=x_array.size,
            data_shape=x_array.shape,
            requires_gradient=kwargs.get("requires_grad", False),
        )
        backend = self.backend_selector.select_backend(workload)

        def compute_func() -> Any:
            impl = self._get_implementation(backend)
            return impl.compute(f, x, **kwargs)

        return self.backend_selector.execute_with_monitoring(
            operation_name=f"derivative_alpha_{self.alpha}",
            backend=backend,
            func=compute_func,
            workload=workload,
            fallback_backends=[BackendType.JAX, BackendType.NUMBA],
        )


def test_integrating_with_fractional_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BASCULE_DISABLE_JAX", "1")
    x = np.linspace(0, 1, 101)
    operator = FractionalDerivative(0.5)
    np.testing.assert_allclose(operator.compute(np.square, x), np.gradient(x**2, x))
    np.testing.assert_allclose(operator.compute(x**2, x, requires_grad=True), np.gradient(x**2, x))
    stats = operator.backend_selector.get_performance_summary()["operation_stats"]
    assert stats[BackendType.TORCH, "derivative_alpha_0.5"]["count"] == 2


class Module:
    """The part of `torch.nn.Module` that the example's layer uses."""

    def __call__(self, x: Tensor) -> Tensor:
        return self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass
class Tensor:
    """The part of `torch.Tensor` that the example's layer uses."""

    data: Array
    requires_grad: bool = False

    def numel(self) -> int:
        return self.data.size

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape


class FractionalLayer(Module):
    def __init__(self, alpha: float, config: Any) -> None:
        super().__init__()
        self.alpha = alpha
        self.config = config
        self.backend_selector = IntelligentBackendSelector(enable_learning=True)

    def _pytorch_forward(self, x: Tensor) -> Tensor:
        return Tensor(self.alpha * x.data)

    def forward(self, x: Tensor) -> Tensor:
        workload = WorkloadCharacteristics(
            operation_type="neural_network",
            data_size=x.numel(),
            data_shape=x.shape,
            requires_gradient=x.requires_grad,
        )
        backend = self.backend_selector.select_backend(
            workload, preferred_backend=self.config.backend
        )
        if backend == BackendType.JAX and x.requires_grad:
            return Tensor(self.alpha * x.data, requires_grad=True)
        return self._pytorch_forward(x)


@pytest.mark.parametrize(
    ("preferred", "by_jax"), [("pytorch", False), (BackendType.JAX, True), ("jax", True)]
)
def test_integrating_with_ml_layers(preferred: Any, by_jax: bool) -> None:
    layer = FractionalLayer(0.5, SimpleNamespace(backend=preferred))
    made = layer(Tensor(np.ones((4, 8)), requires_grad=True))
    assert (made.data == 0.5).all()
    assert made.requires_grad == by_jax
    assert FractionalLayer(0.5, SimpleNamespace(backend=None))(Tensor(np.ones(3))).numel() == 3


JAX_AVAILABLE = False


@dataclass
class GPUConfig:
    backend: str | None = "auto"
    fallback_to_cpu: bool = True


class GPUOptimizedCaputo:
    def __init__(self, alpha: float, gpu_config: GPUConfig | None = None) -> None:
        self.alpha = alpha
        self.gpu_config = gpu_config or GPUConfig()
        self.backend_selector = IntelligentBackendSelector()
        if self.gpu_config.backend == "auto":
            self.gpu_config.backend = None

    def _prepare_data(self, f: Any, t: Array, h: float | None) -> Array:
        del h
        return np.asarray(f(t) if callable(f) else f)

    def _compute_cpu_fallback(self, f_array: Array, h: float | None, scheme: str) -> Array:
        assert scheme == "L1"
        return np.gradient(f_array, h or 1.0)

    _compute_jax_l1 = _compute_cpu_fallback

    def compute(self, f: Any, t: Array, h: float | None = None) -> Array:
        f_array = self._prepare_data(f, t, h)
        workload = WorkloadCharacteristics(
            operation_type="caputo_derivative",
            data_size=f_array.size,
            data_shape=f_array.shape,
            is_iterative=True,
        )
        if self.gpu_config.backend is None:
            from bascule import BackendType

            backend_type = self.backend_selector.select_backend(workload)

            if backend_type == BackendType.JAX:
                self.gpu_config.backend = "jax"
            elif backend_type == BackendType.TORCH:
                self.gpu_config.backend = "torch"
            else:
                self.gpu_config.backend = "numpy"
        try:
            if self.gpu_config.backend == "jax" and JAX_AVAILABLE:
                return self._compute_jax_l1(f_array, h, "L1")
            else:
                return self._compute_cpu_fallback(f_array, h, "L1")
        except Exception:
            if self.gpu_config.fallback_to_cpu:
                return self._compute_cpu_fallback(f_array, h, "L1")
            raise


def test_integrating_with_gpu_optimised_methods() -> None:
    operator = GPUOptimizedCaputo(0.5)
    t = np.linspace(0, 1, 11)
    np.testing.assert_allclose(operator.compute(np.square, t, 0.1), np.gradient(t**2, 0.1))
    assert operator.gpu_config.backend in ("jax", "torch", "numpy")


@dataclass
class FixedStepODESolver:
    derivative_type: str = "caputo"
    method: str = "predictor_corrector"
    adaptive: bool = False
    backend_selector: IntelligentBackendSelector = field(
        default_factory=lambda: IntelligentBackendSelector(enable_learning=True)
    )
    taken: str = ""

    def _solve(self, name: str, f: Any, t_span: Any, y0: Any, h: float) -> Array:
        self.taken = name
        y = np.asarray(y0, float)
        for step in range(round((t_span[1] - t_span[0]) / h)):
            y = y + h * f(t_span[0] + step * h, y)
        return y

    def solve(self, f: Any, t_span: Any, y0: Any, alpha: float, h: float) -> Array:
        n_steps = int((t_span[1] - t_span[0]) / h)
        y0_array = np.asarray(y0)
        workload = WorkloadCharacteristics(
            operation_type="ode_solve",
            data_size=n_steps * y0_array.size,
            data_shape=(n_steps, *y0_array.shape),
            is_iterative=True,
        )
        del alpha
        backend = self.backend_selector.select_backend(workload)
        if backend == BackendType.JAX and not self.adaptive:
            return self._solve("jax", f, t_span, y0, h)
        elif backend == BackendType.TORCH:
            return self._solve("torch", f, t_span, y0, h)
        else:
            return self._solve("numpy", f, t_span, y0, h)


def test_integrating_with_solvers() -> None:
    solver = FixedStepODESolver()
    result = solver.solve(lambda _, y: -y, (0.0, 1.0), [1.0, 2.0], 0.5, 0.001)
    np.testing.assert_allclose(result, [np.exp(-1), 2 * np.exp(-1)], rtol=1e-3)
    assert solver.taken in ("jax", "torch")


# Performance monitoring


def test_enable_learning_and_view_statistics() -> None:
    selector = IntelligentBackendSelector(enable_learning=True)
    workload = WorkloadCharacteristics("matmul", 10000, (100, 100))
    dataset = [np.full((100, 100), float(n)) for n in range(10)]
    for data in dataset:
        backend = selector.select_backend(workload)

        def multiply(data: Array = data) -> Array:
            return data @ data

        selector.execute_with_monitoring("matmul", backend, multiply, workload)
    stats = selector.get_performance_summary()
    print(stats)
    assert stats["total_records"] == 10
    assert len(stats["recent_backends"]) == 10
    for (backend, operation), row in stats["operation_stats"].items():
        assert isinstance(backend, BackendType)
        assert operation == "matmul"
        assert row["avg_time"] == row["total_time"] / row["count"]
        assert row["failures"] == 0


# Environment variables


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("BASCULE_FORCE_JAX", "1", lambda b: b == BackendType.JAX),
        ("BASCULE_DISABLE_TORCH", "1", lambda b: b != BackendType.TORCH),
        ("JAX_PLATFORM_NAME", "cpu", lambda b: b != BackendType.JAX),
    ],
)
def test_environment_variables(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, fits: Callable[[BackendType], bool]
) -> None:
    monkeypatch.setenv(name, value)
    assert fits(select_optimal_backend("matmul", (1000, 1000)))
    assert fits(select_optimal_backend("element_wise", (10,)))


# Best practices


def test_reusing_an_instance() -> None:
    class MyModel:
        def __init__(self) -> None:
            self.backend_selector = IntelligentBackendSelector(enable_learning=True)

        def forward(self, x: Array) -> BackendType:
            workload = WorkloadCharacteristics("neural_network", x.size, x.shape)
            return self.backend_selector.select_backend(workload)

    def forward(x: Array) -> BackendType:
        workload = WorkloadCharacteristics("neural_network", x.size, x.shape)
        selector = IntelligentBackendSelector()
        return selector.select_backend(workload)

    x = np.ones((8, 8))
    assert MyModel().forward(x) == forward(x)


@pytest.mark.parametrize(
    "operation",
    [
        "matmul",
        "conv",
        "fft",
        "derivative",
        "element_wise",
        "neural_network",
        "ode_solve",
        "iterative",
        "other",
    ],
)
@pytest.mark.parametrize("enable_learning", [False, True])
def test_recommended_operation_types(operation: str, enable_learning: bool) -> None:
    selector = IntelligentBackendSelector(enable_learning=enable_learning)
    x = np.zeros((100, 50))
    workload = WorkloadCharacteristics(
        operation_type=operation, data_size=x.size, data_shape=x.shape
    )
    assert isinstance(selector.select_backend(workload), BackendType)


def test_specifying_a_workload_in_full() -> None:
    x = np.zeros(1000)
    workload = WorkloadCharacteristics(
        operation_type="derivative",
        data_size=x.size,
        data_shape=x.shape,
        dtype_size=8,
        is_iterative=True,
        requires_gradient=True,
    )
    backend = IntelligentBackendSelector(enable_learning=True).select_backend(workload)
    assert backend == BackendType.NUMPY  # no GPU tier has float64


# Troubleshooting


def test_troubleshooting() -> None:
    selector = IntelligentBackendSelector(enable_learning=False)
    workload = WorkloadCharacteristics("fft", 1000, (1000,))
    backend = selector.select_backend(workload, preferred_backend=BackendType.JAX)
    assert backend == BackendType.JAX  # this machine has a device, if a software one
    selector.reset_performance_history()
    stats = selector.get_performance_summary()
    assert stats["total_records"] == 0
    assert {row["tier"]: row["works"] for row in stats["tiers"]}["webgpu"]


# Migration guide


def test_migration() -> None:
    class YourClass:
        def __init__(self) -> None:
            self.backend_selector = IntelligentBackendSelector(enable_learning=True)

        def _compute_jax(self, data: Array) -> Array:
            return 2 * data

        _compute_torch = _compute_jax

        def _compute(self, data: Array, backend: BackendType) -> Array:
            del backend
            return 2 * data

        def compute(self, data: Any) -> tuple[Array, Array]:
            workload = WorkloadCharacteristics(
                operation_type="your_operation",
                data_size=data.size,
                data_shape=data.shape,
                requires_gradient=data.requires_grad if hasattr(data, "requires_grad") else False,
            )
            backend = self.backend_selector.select_backend(workload)
            if backend == BackendType.JAX:
                option_a = self._compute_jax(data)
            else:
                option_a = self._compute_torch(data)
            option_b = self.backend_selector.execute_with_monitoring(
                operation_name="your_operation",
                backend=backend,
                func=lambda: self._compute(data, backend),
                workload=workload,
                fallback_backends=[BackendType.JAX, BackendType.NUMBA],
            )
            return option_a, option_b

    option_a, option_b = YourClass().compute(np.arange(7.0))
    np.testing.assert_array_equal(option_a, 2 * np.arange(7.0))
    np.testing.assert_array_equal(option_b, option_a)
