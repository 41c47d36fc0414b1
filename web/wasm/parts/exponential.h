// Exponentials and logarithms to a few units in the last place. Source: Cephes (Moshier), expf.c and
// logf.c.
#ifndef BASCULE_EXPONENTIAL_H
#define BASCULE_EXPONENTIAL_H

#include "parts.h"

INLINE v128_t exp_kernel(v128_t r) { // e^r - 1 for |r| at most log(2) / 2
  v128_t p = POLYNOMIAL(r, 1.9875691500e-4f, 1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f,
                        1.6666665459e-1f, 5.0000001201e-1f);
  return wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, r), r), r);
}

// Added to a float below 2^22 it rounds it: the integer is then in the lowest bits.
#define ROUNDING SPLAT(12582912)

// y * 2^n for a y near 1 and n from -160 to 160, with n + ROUNDING. In two steps: the factors of very
// large and very small results are floats.
INLINE v128_t scaled(v128_t y, v128_t rounded) {
  v128_t n = wasm_i32x4_sub(rounded, ROUNDING), half = wasm_i32x4_shr(n, 1);
  v128_t rest = wasm_i32x4_add(wasm_i32x4_sub(n, half), wasm_i32x4_const_splat(127));
  y = wasm_i32x4_add(y, wasm_i32x4_shl(half, 23));
  return wasm_f32x4_mul(y, wasm_i32x4_shl(rest, 23));
}

INLINE v128_t exponential(v128_t x) {
  x = wasm_f32x4_pmax(wasm_f32x4_pmin(x, SPLAT(89)), SPLAT(-104)); // infinity and 0 from here on
  v128_t rounded = multiply_add(x, SPLAT(1.44269504f), ROUNDING);
  v128_t n = wasm_f32x4_sub(rounded, ROUNDING);
  v128_t r = wasm_f32x4_sub(x, wasm_f32x4_mul(n, SPLAT(0.693359375f)));
  r = multiply_add(n, SPLAT(2.12194440e-4f), r);
  return scaled(wasm_f32x4_add(exp_kernel(r), SPLAT(1)), rounded);
}

// x = mantissa * 2^exponent with a mantissa from sqrt(1/2) to sqrt(2), for x positive and finite.
typedef struct {
  v128_t mantissa, exponent;
} Split;

INLINE Split split(v128_t x) {
  v128_t subnormal = wasm_f32x4_lt(x, SPLAT(1.17549435e-38f));
  v128_t bits = choose(subnormal, wasm_f32x4_mul(x, SPLAT(16777216.0f)), x);
  v128_t offset = choose(subnormal, SPLAT(151), SPLAT(127));
  v128_t fraction = wasm_v128_and(bits, wasm_i32x4_const_splat(0x7fffff));
  v128_t up = wasm_u32x4_shr(wasm_i32x4_gt(fraction, wasm_i32x4_const_splat(0x3504f3)), 31);
  v128_t biased = wasm_i32x4_shl(wasm_i32x4_sub(wasm_i32x4_const_splat(127), up), 23);
  v128_t exponent = wasm_i32x4_add(wasm_u32x4_shr(bits, 23), up);
  exponent = wasm_f32x4_sub(wasm_f32x4_convert_i32x4(exponent), offset);
  return (Split){wasm_v128_or(fraction, biased), exponent};
}

// log(1 + f) - f + f^2 / 2.
INLINE v128_t log_tail(v128_t f) {
  v128_t p = POLYNOMIAL(f, 7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f,
                        -1.2420140846e-1f, 1.4249322787e-1f, -1.6668057665e-1f, 2.0000714765e-1f,
                        -2.4999993993e-1f, 3.3333331174e-1f);
  return wasm_f32x4_mul(wasm_f32x4_mul(wasm_f32x4_mul(p, f), f), f);
}

// log(1 + f) - f.
INLINE v128_t log_rest(v128_t f) {
  return wasm_f32x4_sub(log_tail(f), wasm_f32x4_mul(wasm_f32x4_mul(SPLAT(0.5f), f), f));
}

// y, but for the logarithms of 0, negative numbers, infinity and NaN.
INLINE v128_t log_checked(v128_t x, v128_t y) {
  y = choose(wasm_f32x4_eq(x, INFINITE), INFINITE, y);
  y = choose(wasm_f32x4_eq(x, SPLAT(0)), SPLAT(-__builtin_inff()), y);
  return choose(wasm_f32x4_ge(x, SPLAT(0)), y, NOT_A_NUMBER);
}

INLINE v128_t logarithm(v128_t x) {
  Split s = split(x);
  v128_t f = wasm_f32x4_sub(s.mantissa, SPLAT(1));
  v128_t y = multiply_add(s.exponent, SPLAT(-2.12194440e-4f), log_tail(f));
  y = wasm_f32x4_sub(y, wasm_f32x4_mul(wasm_f32x4_mul(SPLAT(0.5f), f), f));
  y = multiply_add(s.exponent, SPLAT(0.693359375f), wasm_f32x4_add(f, y));
  return log_checked(x, y);
}

INLINE v128_t logarithm_of_1_plus(v128_t x) {
  v128_t small = wasm_v128_and(wasm_f32x4_gt(x, SPLAT(-0.29f)), wasm_f32x4_lt(x, SPLAT(0.41f)));
  v128_t near = wasm_f32x4_add(x, log_rest(x));
  v128_t y = choose(small, near, logarithm(wasm_f32x4_add(SPLAT(1), x)));
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y); // -0 too
}

INLINE v128_t log2_of_mantissa(v128_t m) { // (f + y) * log2(e), the large part exactly
  v128_t f = wasm_f32x4_sub(m, SPLAT(1)), y = log_rest(f);
  v128_t low = wasm_f32x4_add(wasm_f32x4_mul(y, SPLAT(0.44269504f)),
                              wasm_f32x4_mul(f, SPLAT(0.44269504f)));
  return wasm_f32x4_add(wasm_f32x4_add(low, y), f);
}

#endif
