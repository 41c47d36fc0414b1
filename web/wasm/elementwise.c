#include "functions.h"

// y[i] = a[i] + b[i % period], n of them; n is a multiple of the period.
EXPORT void add(float *y, const float *a, const float *b, int n, int period) {
  for (int first = 0; first < n; first += period) {
    add_rows(y + first, a + first, b, period);
  }
}

// y[i] = a[i] * b[i % period], n of them; n is a multiple of the period.
EXPORT void multiply(float *y, const float *a, const float *b, int n, int period) {
  for (int first = 0; first < n; first += period) {
    multiply_rows(y + first, a + first, b, period);
  }
}

// y = x * by, n of them.
EXPORT void scale(float *y, const float *x, int n, float by) {
  for (int i = 0; i < n; i++) {
    y[i] = x[i] * by;
  }
}

// x = cap * tanh(x * by / cap), n of them.
void cap_row(float *x, int n, float by, float cap) {
  v128_t factor = wasm_f32x4_splat(by / cap), most = wasm_f32x4_splat(cap);
  for (int i = 0; i < n; i += 4) {
    int left = MIN(n - i, 4);
    v128_t v = left == 4 ? wasm_v128_load(x + i) : load_some(x + i, left);
    v = wasm_f32x4_mul(hyperbolic_tangent(wasm_f32x4_mul(v, factor)), most);
    store_some(x + i, v, left);
  }
}

// y = cap * tanh(x / cap), n of them.
EXPORT void softcap(float *y, const float *x, int n, float cap) {
  for (int i = 0; i < n; i++) {
    y[i] = x[i];
  }
  cap_row(y, n, 1, cap);
}
