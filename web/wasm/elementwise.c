#include "kernels.h"

// y[i] = a[i] * b[i], n of them.
EXPORT void multiply(float *y, const float *a, const float *b, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    wasm_v128_store(y + i, wasm_f32x4_mul(wasm_v128_load(a + i), wasm_v128_load(b + i)));
  }
  for (; i < n; i++) {
    y[i] = a[i] * b[i];
  }
}
