// float16 and bfloat16 to float32 and back.
#ifndef BASCULE_HALVES_H
#define BASCULE_HALVES_H

#include <stdint.h>

#include "kernels.h"

typedef uint16_t __attribute__((aligned(1), may_alias)) u16_any;
typedef uint32_t __attribute__((aligned(1), may_alias)) u32_any;

// Eight words of 16 bits become the upper halves of words of 32: of the first four, of the others.
INLINE v128_t upper_low(v128_t v) {
  return wasm_i16x8_shuffle(wasm_i32x4_const_splat(0), v, 0, 8, 1, 9, 2, 10, 3, 11);
}

INLINE v128_t upper_high(v128_t v) {
  return wasm_i16x8_shuffle(wasm_i32x4_const_splat(0), v, 4, 12, 5, 13, 6, 14, 7, 15);
}

// Four float16 in the upper halves of words, as float32; infinities and NaN stay such.
INLINE v128_t from_f16(v128_t upper) {
  v128_t bits = wasm_v128_and(wasm_i32x4_shr(upper, 3), wasm_u32x4_const_splat(0x8fffe000));
  v128_t y = wasm_f32x4_mul(bits, wasm_f32x4_const_splat(0x1p112f));
  v128_t last = wasm_f32x4_ge(wasm_f32x4_abs(y), wasm_f32x4_const_splat(65536.0f));
  return wasm_v128_or(y, wasm_v128_and(last, wasm_u32x4_const_splat(0x7f800000)));
}

// Four words' upper halves as float32; bfloat16 is the upper half of one.
INLINE v128_t from_half(int f16, v128_t upper) { return f16 ? from_f16(upper) : upper; }

INLINE float half_at(int f16, const void *at) {
  return wasm_f32x4_extract_lane(from_half(f16, wasm_u32x4_splat(*(const u16_any *)at << 16)), 0);
}

// Four float32 as float16 in the lower halves of words, rounded to nearest, ties to even.
INLINE v128_t to_f16(v128_t x) {
  v128_t sign = wasm_v128_and(x, wasm_u32x4_const_splat(0x80000000));
  v128_t size = wasm_v128_xor(x, sign);
  v128_t odd = wasm_v128_and(wasm_u32x4_shr(size, 13), wasm_i32x4_const_splat(1));
  v128_t rounded = wasm_i32x4_add(wasm_i32x4_add(size, wasm_i32x4_const_splat(0xfff)), odd);
  v128_t y = wasm_u32x4_shr(wasm_i32x4_sub(rounded, wasm_i32x4_const_splat(112 << 23)), 13);
  // Below 2^-14: adding 0.5 lets the addition round to the subnormals' step of 2^-24.
  v128_t half = wasm_f32x4_const_splat(0.5f);
  v128_t small = wasm_i32x4_sub(wasm_f32x4_add(size, half), half);
  y = wasm_v128_bitselect(small, y, wasm_i32x4_lt(size, wasm_i32x4_const_splat(113 << 23)));
  v128_t infinite = wasm_i32x4_const_splat(0x7c00);
  y = wasm_v128_bitselect(infinite, y, wasm_i32x4_ge(size, wasm_i32x4_const_splat(143 << 23)));
  v128_t nan = wasm_i32x4_gt(size, wasm_i32x4_const_splat(255 << 23));
  y = wasm_v128_or(y, wasm_v128_and(nan, wasm_i32x4_const_splat(0x7e00)));
  return wasm_v128_or(y, wasm_u32x4_shr(sign, 16));
}

// n floats from halves, and n halves from floats; n is a multiple of 4.
INLINE void widen(float *y, const uint16_t *x, int n) {
  for (int i = 0; i < n; i += 4) {
    wasm_v128_store(y + i, from_f16(upper_low(wasm_v128_load64_zero(x + i))));
  }
}

INLINE void narrow(uint16_t *y, const float *x, int n) {
  for (int i = 0; i < n; i += 4) {
    v128_t v = to_f16(wasm_v128_load(x + i));
    wasm_v128_store64_lane(y + i, wasm_i16x8_shuffle(v, v, 0, 2, 4, 6, 0, 2, 4, 6), 0);
  }
}

#endif
