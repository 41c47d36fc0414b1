#include "exponential.h"

EXPORT v128_t exp_f(v128_t x) { return exponential(x); }

EXPORT v128_t expm1_f(v128_t x) {
  v128_t small = wasm_f32x4_lt(wasm_f32x4_abs(x), SPLAT(0.34f));
  v128_t y = choose(small, exp_kernel(x), wasm_f32x4_sub(exponential(x), SPLAT(1)));
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y); // -0 too
}

EXPORT v128_t log_f(v128_t x) { return logarithm(x); }

EXPORT v128_t log1p_f(v128_t x) { return logarithm_of_1_plus(x); }

EXPORT v128_t log2_f(v128_t x) {
  Split s = split(x);
  return log_checked(x, wasm_f32x4_add(log2_of_mantissa(s.mantissa), s.exponent));
}

EXPORT v128_t log10_f(v128_t x) {
  Split s = split(x);
  v128_t f = wasm_f32x4_sub(s.mantissa, SPLAT(1)), sum = wasm_f32x4_add(f, log_rest(f));
  v128_t low = wasm_f32x4_add(wasm_f32x4_mul(sum, SPLAT(7.00731903e-4f)),
                              wasm_f32x4_mul(s.exponent, SPLAT(2.48745663e-4f)));
  low = multiply_add(sum, SPLAT(4.3359375e-1f), low);
  return log_checked(x, multiply_add(s.exponent, SPLAT(3.00781250e-1f), low));
}

EXPORT v128_t logaddexp_f(v128_t a, v128_t b) {
  v128_t high = wasm_f32x4_max(a, b), low = wasm_f32x4_min(a, b); // NaN where either is
  v128_t y = wasm_f32x4_add(high, logarithm_of_1_plus(exponential(wasm_f32x4_sub(low, high))));
  return choose(wasm_f32x4_eq(wasm_f32x4_abs(high), INFINITE), high, y);
}
