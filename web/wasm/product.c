// The matrix product that linear layers and attention share.
//
// Both sides are interleaved first, so that one step of k is one run of memory on each. A tile's
// 8 sums, 2 vectors of w, a splat and a product stay in the 15 registers that engines use on
// x86-64. One step an iteration: engines schedule an unrolled loop worse (measured in V8).
#include "kernels.h"

// Four rows side by side into every `width`-th float of `to`.
INLINE void interleave_4(float *to, const int width, const float *from[4], int inner) {
  int k = 0;
  for (; k + 4 <= inner; k += 4) {
    v128_t a = wasm_v128_load(from[0] + k), b = wasm_v128_load(from[1] + k);
    v128_t c = wasm_v128_load(from[2] + k), d = wasm_v128_load(from[3] + k);
    v128_t ab_low = wasm_i32x4_shuffle(a, b, 0, 4, 1, 5);
    v128_t ab_high = wasm_i32x4_shuffle(a, b, 2, 6, 3, 7);
    v128_t cd_low = wasm_i32x4_shuffle(c, d, 0, 4, 1, 5);
    v128_t cd_high = wasm_i32x4_shuffle(c, d, 2, 6, 3, 7);
    wasm_v128_store(to, wasm_i32x4_shuffle(ab_low, cd_low, 0, 1, 4, 5));
    wasm_v128_store(to + width, wasm_i32x4_shuffle(ab_low, cd_low, 2, 3, 6, 7));
    wasm_v128_store(to + 2 * width, wasm_i32x4_shuffle(ab_high, cd_high, 0, 1, 4, 5));
    wasm_v128_store(to + 3 * width, wasm_i32x4_shuffle(ab_high, cd_high, 2, 3, 6, 7));
    to += 4 * width;
  }
  for (; k < inner; k++, to += width) {
    for (int j = 0; j < 4; j++) {
      to[j] = from[j][k];
    }
  }
}

void interleave(float *to, int width, const float *from, int stride, int n, int inner) {
  for (int first = 0; first < width; first += 4) {
    const float *rows[4];
    for (int j = 0; j < 4; j++) {
      rows[j] = from + (first + j < n ? first + j : 0) * stride;
    }
    if (width == TILE_ROWS) {
      interleave_4(to, TILE_ROWS, rows, inner);
    } else {
      interleave_4(to + first, TILE_COLUMNS, rows, inner);
    }
  }
}

INLINE void store_row(float *y, v128_t left, v128_t right, int n) {
  if (n == TILE_COLUMNS) {
    wasm_v128_store(y, left);
    wasm_v128_store(y + 4, right);
  } else if (n >= 4) {
    wasm_v128_store(y, left);
    store_some(y + 4, right, n - 4);
  } else {
    store_some(y, left, n);
  }
}

// One tile; `rows` is a constant wherever this is inlined, so that all sums are registers.
INLINE void tile(float *y, int stride, const float *x, const float *w, const int rows, int columns,
                 int inner) {
  v128_t left[TILE_ROWS], right[TILE_ROWS];
  for (int i = 0; i < rows; i++) {
    left[i] = right[i] = wasm_f32x4_const_splat(0);
  }
#pragma clang loop unroll(disable)
  for (int k = 0; k < inner; k++, x += TILE_ROWS, w += TILE_COLUMNS) {
    v128_t w_left = wasm_v128_load(w), w_right = wasm_v128_load(w + 4);
    for (int i = 0; i < rows; i++) {
      v128_t a = wasm_v128_load32_splat(x + i);
      left[i] = multiply_add(a, w_left, left[i]);
      right[i] = multiply_add(a, w_right, right[i]);
    }
  }
  for (int i = 0; i < rows; i++) {
    store_row(y + i * stride, left[i], right[i], columns);
  }
}

void multiply_panel(float *y, int stride, const float *x, const float *w, int rows, int columns,
                    int inner) {
  for (; rows >= TILE_ROWS; rows -= TILE_ROWS) {
    tile(y, stride, x, w, TILE_ROWS, columns, inner);
    y += TILE_ROWS * stride;
    x += TILE_ROWS * inner;
  }
  switch (rows) {
    case 3: tile(y, stride, x, w, 3, columns, inner); break;
    case 2: tile(y, stride, x, w, 2, columns, inner); break;
    case 1: tile(y, stride, x, w, 1, columns, inner); break;
    default: break;
  }
}
