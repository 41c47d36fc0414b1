#include "kernels.h"

// So many rows of x stay in the second-level cache while all of the weight passes by.
#define BLOCK_ROWS 64
// From so few rows on, rearranging the weight costs more than it gains.
#define FEW_ROWS 3

// Dot products of one row of x with four rows of the weight.
INLINE v128_t four_dots(const float *x, const float *weight, int inner) {
  const float *w1 = weight + inner, *w2 = w1 + inner, *w3 = w2 + inner;
  v128_t a = wasm_f32x4_const_splat(0), b = a, c = a, d = a;
  int k = 0;
  for (; k + 4 <= inner; k += 4) {
    v128_t v = wasm_v128_load(x + k);
    a = multiply_add(v, wasm_v128_load(weight + k), a);
    b = multiply_add(v, wasm_v128_load(w1 + k), b);
    c = multiply_add(v, wasm_v128_load(w2 + k), c);
    d = multiply_add(v, wasm_v128_load(w3 + k), d);
  }
  v128_t sums = sum_lanes_of_4(a, b, c, d);
  for (; k < inner; k++) {
    v128_t column = wasm_f32x4_make(weight[k], w1[k], w2[k], w3[k]);
    sums = multiply_add(wasm_f32x4_splat(x[k]), column, sums);
  }
  return sums;
}

// y (rows, columns) = x (rows, inner) @ weight.T, a few rows: the weight is read once, as it lies.
static void dots(float *y, const float *x, const float *weight, int rows, int columns, int inner) {
  int j = 0;
  for (; j + 4 <= columns; j += 4) {
    for (int i = 0; i < rows; i++) {
      v128_t sums = four_dots(x + i * inner, weight + j * inner, inner);
      wasm_v128_store(y + i * columns + j, sums);
    }
  }
  for (; j < columns; j++) {
    for (int i = 0; i < rows; i++) {
      y[i * columns + j] = dot(x + i * inner, weight + j * inner, inner);
    }
  }
}

// The same for up to BLOCK_ROWS rows, by tiles; scratch as for `linear`.
static void tiles(float *y, const float *x, const float *weight, float *scratch, int rows,
                  int columns, int inner) {
  float *panel = scratch + BLOCK_ROWS * inner;
  for (int i = 0; i < rows; i += TILE_ROWS) {
    interleave(scratch + i * inner, TILE_ROWS, x + i * inner, inner, rows - i, inner);
  }
  for (int j = 0; j < columns; j += TILE_COLUMNS) {
    int n = MIN(columns - j, TILE_COLUMNS);
    interleave(panel, TILE_COLUMNS, weight + j * inner, inner, n, inner);
    multiply_panel(y + j, columns, scratch, panel, rows, n, inner);
  }
}

void finish_rows(float *y, const float *bias, const float *residual, int rows, int columns,
                 int activation) {
  for (; rows > 0; rows--, y += columns) {
    if (bias) {
      add_rows(y, y, bias, columns);
    }
    activate_row(y, columns, activation);
    if (residual) {
      add_rows(y, y, residual, columns);
      residual += columns;
    }
  }
}

// y (rows, columns) = activation(x (rows, inner) @ weight (columns, inner).T + bias) + residual.
// bias (columns) and residual (rows, columns) may be null. scratch: linear_scratch(inner) floats.
EXPORT void linear(float *y, const float *x, const float *weight, const float *bias,
                   const float *residual, float *scratch, int rows, int columns, int inner,
                   int activation) {
  while (rows > 0) {
    int count = MIN(rows, BLOCK_ROWS);
    if (count <= FEW_ROWS) {
      dots(y, x, weight, count, columns, inner);
    } else {
      tiles(y, x, weight, scratch, count, columns, inner);
    }
    finish_rows(y, bias, residual, count, columns, activation);
    y += count * columns;
    residual = residual ? residual + count * columns : 0;
    x += count * inner;
    rows -= count;
  }
}

EXPORT int linear_scratch(int inner) {
  return (BLOCK_ROWS + TILE_COLUMNS) * inner;
}
