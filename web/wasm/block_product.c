// A vector times weights in their blocks, which are read once and never held as numbers.
//
// Over a run, x . (scale * (w - BIAS) + offset) = scale * (x . w) + (offset - BIAS * scale) * (sum
// of x): the second part costs one product a run.
#include "blocks.h"

// Rows that are read side by side, so that x is loaded once for them.
enum { SIDE = 2 };

// sums[r] = the sum of x over run r; 0 past the last.
INLINE void sum_runs(int type, const float *x, int k, float *sums) {
  int length = run_elements(type), runs = k / length;
  for (int r = 0; r < padded_runs(type, k); r++) {
    v128_t sum = wasm_f32x4_const_splat(0);
    for (int i = 0; r < runs && i < length; i += 4) {
      sum = wasm_f32x4_add(sum, wasm_v128_load(x + r * length + i));
    }
    sums[r] = sum_lanes(sum);
  }
}

INLINE Sixteen load_sixteen(const float *x) {
  return (Sixteen){{wasm_v128_load(x), wasm_v128_load(x + 4), wasm_v128_load(x + 8),
                    wasm_v128_load(x + 12)}};
}

INLINE v128_t dot_sixteen(Sixteen w, Sixteen x) {
  v128_t low = multiply_add(w.at[0], x.at[0], wasm_f32x4_mul(w.at[1], x.at[1]));
  v128_t high = multiply_add(w.at[2], x.at[2], wasm_f32x4_mul(w.at[3], x.at[3]));
  return wasm_f32x4_add(low, high);
}

// What a row's offsets and BIAS make up of its product.
INLINE v128_t offset_part(int type, const float *scale, const float *offset, const float *sums,
                          int runs) {
  v128_t total = wasm_f32x4_const_splat(0), bias = wasm_f32x4_splat(-code_bias(type));
  for (int r = 0; r < runs; r += 4) {
    v128_t by = wasm_f32x4_mul(wasm_v128_load(scale + r), bias);
    if (has_offset(type)) {
      by = wasm_f32x4_add(by, wasm_v128_load(offset + r));
    }
    total = multiply_add(by, wasm_v128_load(sums + r), total);
  }
  return total;
}

// totals[j] += x . one group of row j, offsets left out; `scale` is that of the group's first run.
INLINE void add_group(int type, const uint8_t *const *blocks, int group, const float *x,
                      const float *const *scale, v128_t *totals) {
  int in_run = run_elements(type) / 16;
  v128_t run[SIDE];
#pragma clang loop unroll(full)
  for (int s = 0; s < group_sixteens(type); s++) {
    Sixteen given = load_sixteen(x + 16 * s);
#pragma clang loop unroll(full)
    for (int j = 0; j < SIDE; j++) {
      v128_t part = dot_sixteen(codes(type, blocks[j], group, s), given);
      run[j] = s % in_run ? wasm_f32x4_add(run[j], part) : part;
      if (s % in_run == in_run - 1) {
        v128_t by = wasm_v128_load32_splat(scale[j] + s / in_run);
        totals[j] = multiply_add(run[j], by, totals[j]);
      }
    }
  }
}

INLINE void product(int type, float *y, const float *x, const uint8_t *w, int n, int k,
                    float *scratch) {
  int runs = padded_runs(type, k), group_elements = 16 * group_sixteens(type);
  int groups = block_elements(type) / group_elements;
  float *sums = scratch;
  sum_runs(type, x, k, sums);
  for (int i = 0; i < n; i += SIDE) {
    const uint8_t *blocks[SIDE];
    const float *scale[SIDE];
    v128_t totals[SIDE];
#pragma clang loop unroll(full)
    for (int j = 0; j < SIDE; j++) {
      float *of_row = sums + (1 + 2 * j) * runs;
      scale[j] = of_row;
      blocks[j] = w + (i + j < n ? i + j : n - 1) * row_nbytes(type, k);
      scales(type, blocks[j], k, of_row, of_row + runs);
      totals[j] = offset_part(type, of_row, of_row + runs, sums, runs);
    }
    for (int at = 0; at < k; at += block_elements(type)) {
      for (int group = 0; group < groups; group++) {
        add_group(type, blocks, group, x + at + group * group_elements, scale, totals);
        for (int j = 0; j < SIDE; j++) {
          scale[j] += group_elements / run_elements(type);
        }
      }
      for (int j = 0; j < SIDE; j++) {
        blocks[j] += block_nbytes(type);
      }
    }
    for (int j = 0; j < SIDE && i + j < n; j++) {
      y[i + j] = sum_lanes(totals[j]);
    }
  }
}

// Halves have no runs, and rows of any length.
INLINE void half_product(int f16, float *y, const float *x, const uint8_t *w, int n, int k) {
  for (int i = 0; i < n; i++, w += 2 * k) {
    v128_t low = wasm_f32x4_const_splat(0), high = low;
    int at = 0;
    for (; at + 8 <= k; at += 8) {
      v128_t v = wasm_v128_load(w + 2 * at);
      low = multiply_add(from_half(f16, upper_low(v)), wasm_v128_load(x + at), low);
      high = multiply_add(from_half(f16, upper_high(v)), wasm_v128_load(x + at + 4), high);
    }
    float sum = sum_lanes(wasm_f32x4_add(low, high));
    for (; at < k; at++) {
      sum += half_at(f16, w + 2 * at) * x[at];
    }
    y[i] = sum;
  }
}

void block_product(int type, float *y, const float *x, const uint8_t *w, int n, int k,
                   float *scratch) {
  switch (type) {
    case F16: half_product(1, y, x, w, n, k); break;
    case Q4_0: product(Q4_0, y, x, w, n, k, scratch); break;
    case Q4_1: product(Q4_1, y, x, w, n, k, scratch); break;
    case Q8_0: product(Q8_0, y, x, w, n, k, scratch); break;
    case Q4_K: product(Q4_K, y, x, w, n, k, scratch); break;
    case Q5_K: product(Q5_K, y, x, w, n, k, scratch); break;
    case Q6_K: product(Q6_K, y, x, w, n, k, scratch); break;
    default: half_product(0, y, x, w, n, k); break;
  }
}
