// Rows out of weights in their blocks, and products with such weights.
#include "blocks.h"

// Products with so many vectors at most are done one by one; more of them share unpacked rows.
enum { FEW = 3 };

INLINE void unpack_row(int type, float *y, const uint8_t *row, int k, float *scratch) {
  int sixteens = group_sixteens(type), in_run = run_elements(type) / 16;
  float *scale = scratch, *offset = scratch + padded_runs(type, k);
  v128_t bias = wasm_f32x4_splat(code_bias(type));
  scales(type, row, k, scale, offset);
  for (int at = 0; at < k; at += block_elements(type), row += block_nbytes(type)) {
    for (int group = 0; group < block_elements(type) / 16 / sixteens; group++) {
#pragma clang loop unroll(full)
      for (int s = 0; s < sixteens; s++, y += 16) {
        Sixteen w = codes(type, row, group, s);
        v128_t by = wasm_v128_load32_splat(scale + s / in_run);
        for (int i = 0; i < 4; i++) {
          v128_t v = wasm_f32x4_mul(wasm_f32x4_sub(w.at[i], bias), by);
          if (has_offset(type)) {
            v = wasm_f32x4_add(v, wasm_v128_load32_splat(offset + s / in_run));
          }
          wasm_v128_store(y + 4 * i, v);
        }
      }
      scale += sixteens / in_run;
      offset += sixteens / in_run;
    }
  }
}

INLINE void unpack_half_row(int f16, float *y, const uint8_t *row, int k) {
  int at = 0;
  for (; at + 8 <= k; at += 8) {
    v128_t v = wasm_v128_load(row + 2 * at);
    wasm_v128_store(y + at, from_half(f16, upper_low(v)));
    wasm_v128_store(y + at + 4, from_half(f16, upper_high(v)));
  }
  for (; at < k; at++) {
    y[at] = half_at(f16, row + 2 * at);
  }
}

INLINE void copy_row(float *y, const float *row, int k) {
  int at = 0;
  for (; at + 4 <= k; at += 4) {
    wasm_v128_store(y + at, wasm_v128_load(row + at));
  }
  for (; at < k; at++) {
    y[at] = row[at];
  }
}

INLINE void zero_row(float *y, int k) {
  for (int at = 0; at < k; at++) {
    y[at] = 0;
  }
}

static void unpack(int type, float *y, const uint8_t *row, int k, float *scratch) {
  switch (type) {
    case F32: copy_row(y, (const float *)row, k); break;
    case F16: unpack_half_row(1, y, row, k); break;
    case Q4_0: unpack_row(Q4_0, y, row, k, scratch); break;
    case Q4_1: unpack_row(Q4_1, y, row, k, scratch); break;
    case Q8_0: unpack_row(Q8_0, y, row, k, scratch); break;
    case Q4_K: unpack_row(Q4_K, y, row, k, scratch); break;
    case Q5_K: unpack_row(Q5_K, y, row, k, scratch); break;
    case Q6_K: unpack_row(Q6_K, y, row, k, scratch); break;
    default: unpack_half_row(0, y, row, k); break;
  }
}

// y (n, k) = rows of a table of `whole` rows; row i is indices[(*start + i) % slots], where `start`
// counts from 0 if it is null. An index past the table takes its last row. `table` holds `rows` of
// them, from row `first` on; others are those of before (n, k), zeros if it is null. scratch: k
// floats.
EXPORT void take_rows(float *y, const uint8_t *table, const uint32_t *indices,
                      const uint32_t *start, const float *before, float *scratch, int type, int n,
                      int rows, int k, int slots, int first, int whole) {
  for (int i = 0; i < n; i++, y += k) {
    uint32_t index = indices[((start ? *start : 0) + i) % slots];
    index = (index < (uint32_t)whole ? index : (uint32_t)whole - 1) - first;
    if (index < (uint32_t)rows) {
      unpack(type, y, table + index * row_nbytes(type, k), k, scratch);
    } else if (before) {
      copy_row(y, before + i * k, k);
    } else {
      zero_row(y, k);
    }
  }
}

// Rows of x that stay in the second-level cache while all of the weight passes by.
enum { BLOCK_ROWS = 64 };

// y (m, n) = x (m, k) @ w.T, m at most BLOCK_ROWS: each tile of the weight is unpacked once.
static void block_tiles(int type, float *y, const float *x, const uint8_t *w, float *scratch,
                        int m, int n, int k) {
  float *given = scratch, *rows = given + BLOCK_ROWS * k, *panel = rows + TILE_COLUMNS * k;
  for (int i = 0; i < m; i += TILE_ROWS) {
    interleave(given + i * k, TILE_ROWS, x + i * k, k, m - i, k);
  }
  for (int j = 0; j < n; j += TILE_COLUMNS) {
    int count = MIN(n - j, TILE_COLUMNS);
    for (int i = 0; i < count; i++) {
      const uint8_t *row = w + (j + i) * row_nbytes(type, k);
      unpack(type, rows + i * k, row, k, panel);
    }
    interleave(panel, TILE_COLUMNS, rows, k, count, k);
    multiply_panel(y + j, n, given, panel, m, count, k);
  }
}

// y (m, n) = activation(x (m, k) @ w (n, k).T + bias) + residual; bias (n) and residual (m, n) may
// be null. scratch: block_linear_scratch(k) floats.
EXPORT void block_linear(float *y, const float *x, const uint8_t *w, const float *bias,
                         const float *residual, float *scratch, int type, int m, int n, int k,
                         int activation) {
  while (m > 0) {
    int count = MIN(m, m <= FEW ? 1 : BLOCK_ROWS);
    if (m <= FEW) {
      block_product(type, y, x, w, n, k, scratch);
    } else {
      block_tiles(type, y, x, w, scratch, count, n, k);
    }
    finish_rows(y, bias, residual, count, n, activation);
    y += count * n;
    x += count * k;
    residual = residual ? residual + count * n : 0;
    m -= count;
  }
}

EXPORT int block_linear_scratch(int k) {
  return (BLOCK_ROWS + 2 * TILE_COLUMNS) * k + 32;
}
