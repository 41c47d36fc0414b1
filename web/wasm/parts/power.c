// Powers and hypotenuses. Special values as in C's Annex F, which numpy follows.
#include "exponential.h"

INLINE v128_t magnitude(v128_t x, v128_t y) { // x positive or 0 or infinity, y finite and not 0
  Split s = split(x);
  v128_t large = wasm_f32x4_mul(y, s.exponent);
  v128_t small = wasm_f32x4_mul(y, log2_of_mantissa(s.mantissa));
  v128_t n = wasm_f32x4_nearest(wasm_f32x4_add(large, small));
  v128_t rest = wasm_f32x4_add(wasm_f32x4_sub(large, n), small);
  v128_t power = wasm_f32x4_add(exp_kernel(wasm_f32x4_mul(rest, SPLAT(0.69314718f))), SPLAT(1));
  v128_t result = scaled(power, wasm_f32x4_add(n, ROUNDING));
  result = choose(wasm_f32x4_gt(n, SPLAT(160)), INFINITE, result);
  result = choose(wasm_f32x4_lt(n, SPLAT(-160)), SPLAT(0), result);
  v128_t zero = wasm_f32x4_eq(x, SPLAT(0)), positive = wasm_f32x4_gt(y, SPLAT(0));
  v128_t end = choose(wasm_v128_xor(zero, positive), INFINITE, SPLAT(0));
  return choose(wasm_v128_or(zero, wasm_f32x4_eq(x, INFINITE)), end, result);
}

INLINE v128_t whole_power(v128_t x, v128_t n) { // n whole, from 1 to 8: exact where that fits
  v128_t bits = wasm_i32x4_trunc_sat_f32x4(n), y = SPLAT(1), square = x;
  for (int i = 0; i < 4; i++) {
    v128_t taken = wasm_i32x4_shr(wasm_i32x4_shl(bits, 31 - i), 31);
    y = choose(taken, wasm_f32x4_mul(y, square), y);
    square = wasm_f32x4_mul(square, square);
  }
  return y;
}

EXPORT v128_t pow_f(v128_t x, v128_t y) {
  v128_t size = wasm_f32x4_abs(x), exponent = wasm_f32x4_abs(y);
  v128_t one = SPLAT(1), zero = SPLAT(0);
  v128_t finite = wasm_f32x4_lt(size, INFINITE);
  v128_t whole = wasm_f32x4_eq(wasm_f32x4_trunc(y), y); // all floats from 2^23 on are
  v128_t odd = wasm_i32x4_shl(wasm_i32x4_trunc_sat_f32x4(y), 31);
  odd = wasm_v128_and(odd, wasm_f32x4_lt(exponent, SPLAT(16777216)));
  v128_t result = wasm_v128_xor(magnitude(size, y),
                                wasm_v128_and(wasm_v128_and(odd, x), whole));
  v128_t bad = wasm_v128_and(wasm_f32x4_lt(x, zero), finite);
  result = choose(wasm_v128_andnot(bad, whole), NOT_A_NUMBER, result);
  v128_t small = wasm_v128_and(wasm_f32x4_gt(y, zero), wasm_f32x4_le(y, SPLAT(8)));
  small = wasm_v128_and(wasm_v128_and(small, whole), finite);
  result = choose(small, whole_power(x, y), result);
  v128_t grows = wasm_v128_xor(wasm_f32x4_gt(size, one), wasm_f32x4_lt(y, zero));
  v128_t limit = choose(wasm_f32x4_eq(size, one), one, choose(grows, INFINITE, zero));
  result = choose(wasm_f32x4_eq(exponent, INFINITE), limit, result);
  result = choose(wasm_v128_or(is_nan(x), is_nan(y)), NOT_A_NUMBER, result);
  return choose(wasm_v128_or(wasm_f32x4_eq(y, zero), wasm_f32x4_eq(x, one)), one, result);
}

// The roots of two sums of squares, in the first two lanes. In doubles nothing overflows.
INLINE v128_t roots(v128_t a, v128_t b) {
  a = wasm_f64x2_promote_low_f32x4(a);
  b = wasm_f64x2_promote_low_f32x4(b);
  v128_t sum = wasm_f64x2_add(wasm_f64x2_mul(a, a), wasm_f64x2_mul(b, b));
  return wasm_f32x4_demote_f64x2_zero(wasm_f64x2_sqrt(sum));
}

EXPORT v128_t hypot_f(v128_t a, v128_t b) {
  v128_t low = roots(a, b);
  v128_t high = roots(wasm_i32x4_shuffle(a, a, 2, 3, 2, 3), wasm_i32x4_shuffle(b, b, 2, 3, 2, 3));
  v128_t infinite = wasm_v128_or(wasm_f32x4_eq(wasm_f32x4_abs(a), INFINITE),
                                 wasm_f32x4_eq(wasm_f32x4_abs(b), INFINITE));
  return choose(infinite, INFINITE, wasm_i32x4_shuffle(low, high, 0, 1, 4, 5));
}
