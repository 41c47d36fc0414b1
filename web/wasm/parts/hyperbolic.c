// Hyperbolic functions. Source of the fits near 0: Cephes (Moshier), tanhf.c and sinhf.c.
#include "exponential.h"

EXPORT v128_t tanh_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x), z = wasm_f32x4_mul(x, x);
  v128_t p = POLYNOMIAL(z, -5.70498872745e-3f, 2.06390887954e-2f, -5.37397155531e-2f,
                        1.33314422036e-1f, -3.33332819422e-1f);
  v128_t near = wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, z), x), x);
  v128_t power = wasm_f32x4_add(exponential(wasm_f32x4_add(size, size)), SPLAT(1));
  v128_t far = wasm_f32x4_sub(SPLAT(1), wasm_f32x4_div(SPLAT(2), power));
  return choose(wasm_f32x4_lt(size, SPLAT(0.625f)), near, signed_as(far, x));
}

EXPORT v128_t sinh_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x), z = wasm_f32x4_mul(x, x);
  v128_t p = POLYNOMIAL(z, 2.03721912945e-4f, 8.33028376239e-3f, 1.66667160211e-1f);
  v128_t near = wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, z), x), x);
  // e^x / 2 without a larger number on the way.
  v128_t root = exponential(wasm_f32x4_mul(size, SPLAT(0.5f)));
  v128_t half = wasm_f32x4_mul(wasm_f32x4_mul(SPLAT(0.5f), root), root);
  v128_t far = wasm_f32x4_sub(half, wasm_f32x4_div(SPLAT(0.5f), wasm_f32x4_mul(root, root)));
  return choose(wasm_f32x4_lt(size, SPLAT(1)), near, signed_as(far, x));
}

EXPORT v128_t cosh_f(v128_t x) {
  v128_t root = exponential(wasm_f32x4_mul(wasm_f32x4_abs(x), SPLAT(0.5f)));
  v128_t half = wasm_f32x4_mul(wasm_f32x4_mul(SPLAT(0.5f), root), root);
  return wasm_f32x4_add(half, wasm_f32x4_div(SPLAT(0.5f), wasm_f32x4_mul(root, root)));
}

EXPORT v128_t asinh_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x), z = wasm_f32x4_mul(size, size);
  v128_t root = wasm_f32x4_sqrt(wasm_f32x4_add(SPLAT(1), z));
  v128_t rest = wasm_f32x4_div(z, wasm_f32x4_add(SPLAT(1), root));
  v128_t near = logarithm_of_1_plus(wasm_f32x4_add(size, rest));
  v128_t far = wasm_f32x4_add(logarithm(size), SPLAT(0.69314718f));
  v128_t y = signed_as(choose(wasm_f32x4_gt(size, SPLAT(1.0e4f)), far, near), x);
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y);
}

EXPORT v128_t acosh_f(v128_t x) {
  v128_t t = wasm_f32x4_sub(x, SPLAT(1));
  v128_t root = wasm_f32x4_sqrt(wasm_f32x4_mul(t, wasm_f32x4_add(t, SPLAT(2))));
  v128_t near = logarithm_of_1_plus(wasm_f32x4_add(t, root));
  v128_t far = wasm_f32x4_add(logarithm(x), SPLAT(0.69314718f));
  v128_t y = choose(wasm_f32x4_gt(x, SPLAT(1.0e4f)), far, near);
  return choose(wasm_f32x4_ge(x, SPLAT(1)), y, NOT_A_NUMBER);
}

EXPORT v128_t atanh_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x);
  v128_t ratio = wasm_f32x4_div(wasm_f32x4_add(size, size), wasm_f32x4_sub(SPLAT(1), size));
  v128_t y = signed_as(wasm_f32x4_mul(SPLAT(0.5f), logarithm_of_1_plus(ratio)), x);
  y = choose(wasm_f32x4_le(size, SPLAT(1)), y, NOT_A_NUMBER);
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y);
}
