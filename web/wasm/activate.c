#include "functions.h"

enum { NONE, GELU, RELU, TANH, SILU, GELU_TANH };

// Each within 1e-6 of the exact function, relative to max(1, |x|).
INLINE v128_t activated(v128_t x, const int kind) {
  switch (kind) {
    case GELU: {
      v128_t half = wasm_f32x4_mul(x, SPLAT(0.5f));
      return multiply_add(half, error_function(wasm_f32x4_mul(x, SPLAT(0.707106781f))), half);
    }
    case RELU:
      return wasm_f32x4_pmax(x, SPLAT(0));
    case TANH:
      return hyperbolic_tangent(x);
    case SILU:
      x = wasm_f32x4_pmax(x, SPLAT(-87));  // below, the value is 0
      return wasm_f32x4_div(x, wasm_f32x4_add(SPLAT(1), exponential(wasm_f32x4_neg(x))));
    case GELU_TANH: {  // x * sigmoid(2 * u); past 10 it is x or 0
      v128_t c = wasm_f32x4_pmin(wasm_f32x4_pmax(x, SPLAT(-10)), SPLAT(10));
      v128_t u = multiply_add(wasm_f32x4_mul(c, c), SPLAT(0.044715f), SPLAT(1));
      u = wasm_f32x4_mul(wasm_f32x4_mul(c, SPLAT(-1.5957691216f)), u);
      x = wasm_f32x4_pmax(x, SPLAT(-10));
      return wasm_f32x4_div(x, wasm_f32x4_add(SPLAT(1), exponential(u)));
    }
    default:
      return x;
  }
}

INLINE void activate_all(float *y, int n, const int kind) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    wasm_v128_store(y + i, activated(wasm_v128_load(y + i), kind));
  }
  if (i < n) {
    store_some(y + i, activated(load_some(y + i, n - i), kind), n - i);
  }
}

void activate_row(float *y, int n, int kind) {
  switch (kind) {
    case GELU: activate_all(y, n, GELU); break;
    case RELU: activate_all(y, n, RELU); break;
    case TANH: activate_all(y, n, TANH); break;
    case SILU: activate_all(y, n, SILU); break;
    case GELU_TANH: activate_all(y, n, GELU_TANH); break;
    default: break;
  }
}

// y = activation(x), n of them.
EXPORT void activate(float *y, const float *x, int n, int kind) {
  for (int i = 0; i < n; i++) {
    y[i] = x[i];
  }
  activate_row(y, n, kind);
}

// y[r, j] = activation(both[r, j]) * both[r, n + j]; both is (rows, 2 * n) and is overwritten.
EXPORT void gate(float *y, float *both, int rows, int n, int kind) {
  for (; rows > 0; rows--, y += n, both += 2 * n) {
    activate_row(both, n, kind);
    multiply_rows(y, both, both + n, n);
  }
}
