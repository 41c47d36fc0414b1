// Sine, cosine and tangent of every finite float. Source: Cephes (Moshier), sinf.c; large arguments
// after Payne and Hanek 1983.
#ifndef BASCULE_TRIGONOMETRIC_H
#define BASCULE_TRIGONOMETRIC_H

#include "parts.h"

typedef struct {
  v128_t rest, quadrant; // x = quadrant * pi / 2 + rest
} Angle;

// 32 bits of 2 / pi, the first of them bit 32 * at; zeros before the point. No table: a part has no
// memory.
INLINE unsigned two_over_pi(int at) {
  return at == 1   ? 0xa2f9836eu
         : at == 2 ? 0x4e441529u
         : at == 3 ? 0xfc2757d1u
         : at == 4 ? 0xf534ddc0u
         : at == 5 ? 0xdb629599u
         : at == 6 ? 0x3c439041u
         : at == 7 ? 0xfe5163abu
                   : 0u;
}

// The rest of |x| from 8,192 on by pi / 2, in integers; the quadrant in *quadrant.
INLINE float large_angle(unsigned bits, int *quadrant) {
  unsigned long long mantissa = (bits & 0x7fffffu) | 0x800000u;
  int bit = (int)((bits >> 23) & 0xffu) - 150 + 30, at = bit >> 5, shift = bit & 31;
  unsigned long long first = (unsigned long long)two_over_pi(at) << 32 | two_over_pi(at + 1);
  unsigned long long last = (unsigned long long)two_over_pi(at + 2) << 32 | two_over_pi(at + 3);
  // 96 bits of 2 / pi from `bit` on, times the mantissa, without what is above 2^64.
  unsigned window0 = (unsigned)(first << shift >> 32);
  unsigned window1 = (unsigned)(((first << 32) | (last >> 32)) << shift >> 32);
  unsigned window2 = (unsigned)(last << shift >> 32);
  unsigned long long product = mantissa * window1 + ((mantissa * window2) >> 32);
  unsigned high = (unsigned)mantissa * window0 + (unsigned)(product >> 32);
  unsigned low = (unsigned)product;
  *quadrant = (int)((high + 0x20000000u) >> 30);
  unsigned long long fraction = (unsigned long long)high << 34 | (unsigned long long)low << 2;
  return (float)(long long)fraction * 8.51530395e-20f; // pi / 2 / 2^64
}

INLINE Angle angle_of(v128_t x) {
  v128_t size = wasm_f32x4_abs(x);
  v128_t n = wasm_f32x4_nearest(wasm_f32x4_mul(size, SPLAT(0.636619772f)));
  v128_t rest = wasm_f32x4_sub(size, wasm_f32x4_mul(n, SPLAT(1.5703125f)));
  rest = wasm_f32x4_sub(rest, wasm_f32x4_mul(n, SPLAT(4.837512969970703125e-4f)));
  rest = wasm_f32x4_sub(rest, wasm_f32x4_mul(n, SPLAT(7.54978995489188216e-8f)));
  v128_t quadrant = wasm_i32x4_trunc_sat_f32x4(n);
  v128_t large = wasm_f32x4_ge(size, SPLAT(8192));
  if (wasm_v128_any_true(large)) {
    int q0, q1, q2, q3;
    float r0 = large_angle(wasm_u32x4_extract_lane(x, 0), &q0);
    float r1 = large_angle(wasm_u32x4_extract_lane(x, 1), &q1);
    float r2 = large_angle(wasm_u32x4_extract_lane(x, 2), &q2);
    float r3 = large_angle(wasm_u32x4_extract_lane(x, 3), &q3);
    rest = choose(large, wasm_f32x4_make(r0, r1, r2, r3), rest);
    quadrant = choose(large, wasm_i32x4_make(q0, q1, q2, q3), quadrant);
  }
  v128_t negative = wasm_f32x4_lt(x, SPLAT(0));
  rest = choose(negative, wasm_f32x4_neg(rest), rest);
  return (Angle){rest, choose(negative, wasm_i32x4_neg(quadrant), quadrant)};
}

// The sine of an angle `more` quadrants further.
INLINE v128_t turned(Angle angle, int more) {
  v128_t r = angle.rest, z = wasm_f32x4_mul(r, r);
  v128_t p = POLYNOMIAL(z, -1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f);
  v128_t sine = wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, z), r), r);
  p = POLYNOMIAL(z, 2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f);
  v128_t cosine = wasm_f32x4_mul(wasm_f32x4_mul(p, z), z);
  cosine = wasm_f32x4_add(wasm_f32x4_sub(cosine, wasm_f32x4_mul(SPLAT(0.5f), z)), SPLAT(1));
  v128_t quadrant = wasm_i32x4_add(angle.quadrant, wasm_i32x4_splat(more));
  v128_t odd = wasm_i32x4_shr(wasm_i32x4_shl(quadrant, 31), 31);
  v128_t sign = wasm_i32x4_shl(wasm_u32x4_shr(quadrant, 1), 31);
  return wasm_v128_xor(choose(odd, cosine, sine), sign);
}

// y, but NaN for infinities.
INLINE v128_t of_finite(v128_t x, v128_t y) {
  return choose(wasm_f32x4_lt(wasm_f32x4_abs(x), INFINITE), y, NOT_A_NUMBER);
}

#endif
