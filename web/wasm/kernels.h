// What all kernels share. Freestanding C: no libc, no threads, 32-bit pointers, SIMD of 128 bits.
//
// Tensors are dense, row-major float32, 4-byte aligned; sizes are in elements. A kernel never
// allocates: results and scratch memory come from the caller, who has checked every size.
#ifndef BASCULE_KERNELS_H
#define BASCULE_KERNELS_H

#include <wasm_simd128.h>

// Only what carries this can be called from outside the module.
#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

// a * b + c, the product rounded on its own. Relaxed SIMD's fused instruction made products 7 to
// 15 % faster in Chromium: not worth a second module with other numbers.
INLINE v128_t multiply_add(v128_t a, v128_t b, v128_t c) {
  return wasm_f32x4_add(wasm_f32x4_mul(a, b), c);
}

// Loads and stores of the first n floats, n from 1 to 4; what lies beyond is neither read nor
// written, and reads as 0.
INLINE v128_t load_some(const float *x, int n) {
  float all[4] = {0, 0, 0, 0};
  for (int i = 0; i < n; i++) {
    all[i] = x[i];
  }
  return wasm_v128_load(all);
}

INLINE void store_some(float *y, v128_t v, int n) {
  float all[4];
  wasm_v128_store(all, v);
  for (int i = 0; i < n; i++) {
    y[i] = all[i];
  }
}

INLINE float sum_lanes(v128_t v) {
  v = wasm_f32x4_add(v, wasm_i32x4_shuffle(v, v, 2, 3, 0, 1));
  return wasm_f32x4_extract_lane(v, 0) + wasm_f32x4_extract_lane(v, 1);
}

#define MIN(a, b) ((a) < (b) ? (a) : (b))

// (sum of a, sum of b, sum of c, sum of d).
INLINE v128_t sum_lanes_of_4(v128_t a, v128_t b, v128_t c, v128_t d) {
  v128_t ab = wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 4, 1, 5),
                             wasm_i32x4_shuffle(a, b, 2, 6, 3, 7));
  v128_t cd = wasm_f32x4_add(wasm_i32x4_shuffle(c, d, 0, 4, 1, 5),
                             wasm_i32x4_shuffle(c, d, 2, 6, 3, 7));
  return wasm_f32x4_add(wasm_i32x4_shuffle(ab, cd, 0, 1, 4, 5),
                        wasm_i32x4_shuffle(ab, cd, 2, 3, 6, 7));
}

// y = a + b, n of each; y may be either of them.
INLINE void add_rows(float *y, const float *a, const float *b, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    wasm_v128_store(y + i, wasm_f32x4_add(wasm_v128_load(a + i), wasm_v128_load(b + i)));
  }
  for (; i < n; i++) {
    y[i] = a[i] + b[i];
  }
}

// y = a * b, n of each; y may be either of them.
INLINE void multiply_rows(float *y, const float *a, const float *b, int n) {
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    wasm_v128_store(y + i, wasm_f32x4_mul(wasm_v128_load(a + i), wasm_v128_load(b + i)));
  }
  for (; i < n; i++) {
    y[i] = a[i] * b[i];
  }
}

INLINE float dot(const float *a, const float *b, int n) {
  v128_t sum = wasm_f32x4_const_splat(0);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    sum = multiply_add(wasm_v128_load(a + i), wasm_v128_load(b + i), sum);
  }
  float total = sum_lanes(sum);
  for (; i < n; i++) {
    total += a[i] * b[i];
  }
  return total;
}

// product.c
// Rows of x and columns of the result (rows of the weight) that a tile computes at once.
#define TILE_ROWS 4
#define TILE_COLUMNS 8
// Interleaves up to `width` rows: to[k * width + j] = from[j * stride + k]; rows from n on repeat
// row 0. `width` is TILE_ROWS or TILE_COLUMNS.
void interleave(float *to, int width, const float *from, int stride, int n, int inner);
// y[i * stride + j] = sum over k of x[i, k] * w[j, k] for i < rows, j < columns <= TILE_COLUMNS.
// x comes in runs of TILE_ROWS rows, w as one run of TILE_COLUMNS, both interleaved.
void multiply_panel(float *y, int stride, const float *x, const float *w, int rows, int columns,
                    int inner);

// linear.c: y (rows, columns) = activation(y + bias) + residual in place; both may be null.
void finish_rows(float *y, const float *bias, const float *residual, int rows, int columns,
                 int activation);

// activate.c: in place over n floats; kinds in the order of ACTIVATIONS in program/ops.py.
void activate_row(float *y, int n, int kind);

#endif
