#include "kernels.h"

// The sum of (x[i] - by)^2.
INLINE float sum_of_squares(const float *x, int n, float by) {
  v128_t sum = wasm_f32x4_const_splat(0), shift = wasm_f32x4_splat(by);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    v128_t d = wasm_f32x4_sub(wasm_v128_load(x + i), shift);
    sum = multiply_add(d, d, sum);
  }
  float total = sum_lanes(sum);
  for (; i < n; i++) {
    total += (x[i] - by) * (x[i] - by);
  }
  return total;
}

// y = (x - by) * scale * (weight + plus) + bias; a null bias is 0. y may be x.
INLINE void scale_row(float *y, const float *x, const float *weight, const float *bias, int n,
                      float by, float scale, float plus) {
  v128_t shift = wasm_f32x4_splat(by), factor = wasm_f32x4_splat(scale);
  v128_t more = wasm_f32x4_splat(plus);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    v128_t v = wasm_f32x4_mul(wasm_f32x4_sub(wasm_v128_load(x + i), shift), factor);
    v = wasm_f32x4_mul(v, wasm_f32x4_add(wasm_v128_load(weight + i), more));
    wasm_v128_store(y + i, bias ? wasm_f32x4_add(v, wasm_v128_load(bias + i)) : v);
  }
  for (; i < n; i++) {
    y[i] = (x[i] - by) * scale * (weight[i] + plus) + (bias ? bias[i] : 0);
  }
}

// y = x + residual; returns the sum. A null residual is 0.
INLINE float sum_row(float *y, const float *x, const float *residual, int n) {
  v128_t sum = wasm_f32x4_const_splat(0);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    v128_t v = wasm_v128_load(x + i);
    v = residual ? wasm_f32x4_add(v, wasm_v128_load(residual + i)) : v;
    sum = wasm_f32x4_add(sum, v);
    wasm_v128_store(y + i, v);
  }
  float total = sum_lanes(sum);
  for (; i < n; i++) {
    y[i] = x[i] + (residual ? residual[i] : 0);
    total += y[i];
  }
  return total;
}

// s = x + residual; y = (s - mean(s)) / sqrt(var(s) + eps) * weight + bias, row by row (Ba et al.
// 2016). residual may be null.
EXPORT void layer_norm(float *y, const float *x, const float *weight, const float *bias,
                       const float *residual, int rows, int columns, float eps) {
  for (; rows > 0; rows--, x += columns, y += columns) {
    float mean = sum_row(y, x, residual, columns) / columns;
    float variance = sum_of_squares(y, columns, mean) / columns;
    scale_row(y, y, weight, bias, columns, mean, 1 / __builtin_sqrtf(variance + eps), 0);
    residual = residual ? residual + columns : 0;
  }
}

// y = x / sqrt(mean(x^2) + eps) * (weight + plus), row by row (Zhang & Sennrich 2019).
EXPORT void rms_norm(float *y, const float *x, const float *weight, int rows, int columns,
                     float eps, float plus) {
  for (; rows > 0; rows--, x += columns, y += columns) {
    float mean = sum_of_squares(x, columns, 0) / columns;
    scale_row(y, x, weight, 0, columns, 0, 1 / __builtin_sqrtf(mean + eps), plus);
  }
}

// y = x / max(|x|, eps), row by row.
EXPORT void l2_normalise(float *y, const float *x, int rows, int columns, float eps) {
  for (; rows > 0; rows--, x += columns, y += columns) {
    float norm = __builtin_sqrtf(sum_of_squares(x, columns, 0));
    // A NaN norm stays one: it is not below eps.
    float scale = norm < eps ? eps : norm;
    for (int i = 0; i < columns; i++) {
      y[i] = x[i] / scale;
    }
  }
}
