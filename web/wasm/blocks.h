// Weights in their blocks: how each format's bytes become numbers. py/bascule/backend/quant.py
// documents the layouts and is the definition.
//
// A block is read in groups of sixteens. `codes` gives sixteen small whole numbers q as floats
// w = UNIT * q + BIAS, most of them by putting q among the bits of 32.0, which needs no conversion;
// `scales` gives each run (the elements that share a scale) a scale and an offset such that an
// element is scale * (w - BIAS) + offset. A UNIT is a power of two, so that this is the format's
// own arithmetic and elements are equal bit by bit. `type` is a literal wherever this is inlined:
// every switch folds away.
#ifndef BASCULE_BLOCKS_H
#define BASCULE_BLOCKS_H

#include "halves.h"

// The numbers that stand in a GGUF file.
enum { F32 = 0, F16 = 1, Q4_0 = 2, Q4_1 = 3, Q8_0 = 8, Q4_K = 12, Q5_K = 13, Q6_K = 14, BF16 = 30 };

typedef struct {
  v128_t at[4];
} Sixteen;

INLINE int is_half(int type) { return type == F16 || type == BF16; }

INLINE int block_elements(int type) {
  return type == F32 || is_half(type) ? 1 : type < Q4_K ? 32 : 256;
}

INLINE int block_nbytes(int type) {
  switch (type) {
    case F32: return 4;
    case Q4_0: return 18;
    case Q4_1: return 20;
    case Q8_0: return 34;
    case Q4_K: return 144;
    case Q5_K: return 176;
    case Q6_K: return 210;
    default: return 2;
  }
}

INLINE int row_nbytes(int type, int k) { return k / block_elements(type) * block_nbytes(type); }

INLINE int group_sixteens(int type) { return type < Q4_K ? 2 : type == Q6_K ? 8 : 4; }

INLINE int run_elements(int type) { return type == Q6_K ? 16 : 32; }

INLINE int has_offset(int type) { return type == Q4_1 || type == Q4_K || type == Q5_K; }

INLINE float code_bias(int type) {
  return type == Q8_0 ? 0.0f : type == Q4_0 || type == Q6_K ? 48.0f : 32.0f;
}

// Runs of a row, filled up to whole vectors.
INLINE int padded_runs(int type, int k) { return (k / run_elements(type) + 3) & ~3; }

INLINE v128_t interleave_low(v128_t a, v128_t b) {
  return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

INLINE v128_t interleave_high(v128_t a, v128_t b) {
  return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

INLINE Sixteen uppers(v128_t low, v128_t high) {
  return (Sixteen){{upper_low(low), upper_high(low), upper_low(high), upper_high(high)}};
}

// Sixteen bytes below 128 become bits 16..23 below a top byte of 0x42: 32 + byte / 4.
INLINE Sixteen mantissas(v128_t bytes) {
  v128_t top = wasm_u8x16_const_splat(0x42);
  return uppers(interleave_low(bytes, top), interleave_high(bytes, top));
}

// Sixteen int8 as floats, times 2^24: as the top bytes of words they need no sign extension.
INLINE Sixteen signed_bytes(const uint8_t *bytes) {
  v128_t zero = wasm_i32x4_const_splat(0), v = wasm_v128_load(bytes);
  Sixteen w = uppers(interleave_low(zero, v), interleave_high(zero, v));
  for (int i = 0; i < 4; i++) {
    w.at[i] = wasm_f32x4_convert_i32x4(w.at[i]);
  }
  return w;
}

// The bits `mask` of each byte after a shift to the left or, where `left` is below 0, to the right.
// Words of 16 bits are shifted: what crosses from byte to byte is masked out.
INLINE v128_t bits(v128_t v, int mask, int left) {
  v = left < 0 ? wasm_u16x8_shr(v, -left) : wasm_i16x8_shl(v, left);
  return wasm_v128_and(v, wasm_u8x16_splat(mask));
}

// The low or the high halves of sixteen bytes, `at` bits from the right.
INLINE v128_t nibbles(const uint8_t *bytes, int high, int at) {
  return bits(wasm_v128_load(bytes), 15 << at, high ? at - 4 : at);
}

// Sixteen `s` of group `group` of a block.
INLINE Sixteen codes(int type, const uint8_t *block, int group, int s) {
  switch (type) {
    case Q4_0: return mantissas(nibbles(block + 2, s, 3));
    case Q4_1: return mantissas(nibbles(block + 4, s, 3));
    case Q4_K: return mantissas(nibbles(block + 16 + 32 * group + 16 * (s & 1), s >> 1, 3));
    case Q5_K: {
      v128_t low = nibbles(block + 48 + 32 * group + 16 * (s & 1), s >> 1, 2);
      v128_t fifth = wasm_v128_load(block + 16 + 16 * (s & 1));
      fifth = bits(wasm_u16x8_shr(fifth, 2 * group + (s >> 1)), 1, 0);
      return mantissas(wasm_v128_or(low, wasm_i16x8_shl(fifth, 6)));
    }
    case Q6_K: {
      v128_t low = nibbles(block + 64 * group + 16 * (s & 3), s >> 2, 1);
      v128_t high = wasm_v128_load(block + 128 + 32 * group + 16 * (s & 1));
      return mantissas(wasm_v128_or(low, bits(high, 3 << 5, 5 - (s & 6))));
    }
    default: return signed_bytes(block + 2 + 16 * s);
  }
}

// The scales of four blocks of 32 elements at a time; past the last one, that one's again.
INLINE void small_scales(int type, const uint8_t *row, int blocks, float *scale, float *offset) {
  v128_t unit = wasm_f32x4_splat(type == Q8_0 ? 0x1p-24f : 0.5f);
  for (int b = 0; b < blocks; b += 4) {
    uint32_t read[4];
    for (int i = 0; i < 4; i++) {
      const uint8_t *block = row + (b + i < blocks ? b + i : blocks - 1) * block_nbytes(type);
      read[i] = type == Q4_1 ? *(const u32_any *)block : *(const u16_any *)block;
    }
    v128_t v = wasm_u32x4_make(read[0], read[1], read[2], read[3]);
    wasm_v128_store(scale + b, wasm_f32x4_mul(from_f16(wasm_i32x4_shl(v, 16)), unit));
    if (type == Q4_1) {
      wasm_v128_store(offset + b, from_f16(v));
    }
  }
}

// Four bytes, each times `by`.
INLINE void store_times(float *y, uint32_t bytes, float by) {
  v128_t wide = wasm_u16x8_extend_low_u8x16(wasm_u32x4_make(bytes, 0, 0, 0));
  wide = wasm_f32x4_convert_u32x4(wasm_u32x4_extend_low_u16x8(wide));
  wasm_v128_store(y, wasm_f32x4_mul(wide, wasm_f32x4_splat(by)));
}

// The 8 scales and offsets of a Q4_K or Q5_K block.
INLINE void k_scales(int type, const uint8_t *block, float *scale, float *offset) {
  const u32_any *packed = (const u32_any *)(block + 4);
  uint32_t a = packed[0], b = packed[1], c = packed[2];
  // Halving a float16 that stands in a float32 loses nothing.
  float d = half_at(1, block) * (type == Q4_K ? 0.5f : 1.0f), least = -half_at(1, block + 2);
  store_times(scale, a & 0x3f3f3f3f, d);
  store_times(scale + 4, (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030), d);
  store_times(offset, b & 0x3f3f3f3f, least);
  store_times(offset + 4, (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030), least);
}

// The 16 scales of a Q6_K block, twice as large: its UNIT is a half.
INLINE void six_scales(const uint8_t *block, float *scale) {
  Sixteen s = signed_bytes(block + 192);
  v128_t d = wasm_f32x4_splat(half_at(1, block + 208) * 0x1p-23f);
  for (int i = 0; i < 4; i++) {
    wasm_v128_store(scale + 4 * i, wasm_f32x4_mul(d, s.at[i]));
  }
}

// Scales and offsets of a row of k elements; each array has room for `padded_runs`.
INLINE void scales(int type, const uint8_t *row, int k, float *scale, float *offset) {
  int blocks = k / block_elements(type);
  if (type < Q4_K) {
    small_scales(type, row, blocks, scale, offset);
    return;
  }
  for (int b = 0; b < blocks; b++, row += block_nbytes(type)) {
    if (type == Q6_K) {
      six_scales(row, scale + 16 * b);
    } else {
      k_scales(type, row, scale + 8 * b, offset + 8 * b);
    }
  }
}

// block_product.c: y[i] = x . row i, for n rows of k elements; scratch: k + 32 floats.
void block_product(int type, float *y, const float *x, const uint8_t *w, int n, int k,
                   float *scratch);

#endif
