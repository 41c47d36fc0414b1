// Elementary functions of four floats at once; NaN stays NaN. The coefficients are least-squares
// fits, weighted until the largest error was smallest.
#ifndef BASCULE_FUNCTIONS_H
#define BASCULE_FUNCTIONS_H

#include "kernels.h"

#define SPLAT(value) wasm_f32x4_const_splat(value)

// c[0] + c[1] * x + ... + c[degree] * x^degree.
INLINE v128_t polynomial(v128_t x, const float *c, const int degree) {
  v128_t sum = wasm_f32x4_splat(c[degree]);
  for (int i = degree - 1; i >= 0; i--) {
    sum = multiply_add(sum, x, wasm_f32x4_splat(c[i]));
  }
  return sum;
}

// x, no less than low and no more than high; pmin and pmax are single instructions and let NaN through.
INLINE v128_t clamp(v128_t x, float low, float high) {
  return wasm_f32x4_pmin(wasm_f32x4_pmax(x, wasm_f32x4_splat(low)), wasm_f32x4_splat(high));
}

// e^x within 2e-7 of it; below -87 and above 88 as if x were there.
INLINE v128_t exponential(v128_t x) {
  static const float fit[] = {1,           1,           0.499999934f, 0.166665201f,
                              0.0416683943f, 0.00836878062f, 0.00138144648f};
  // Adding 1.5 * 2^23 rounds to a whole number n, which then stands in the low bits.
  const v128_t magic = SPLAT(12582912.0f);
  x = clamp(x, -87.0f, 88.0f);
  v128_t shifted = multiply_add(x, SPLAT(1.44269504f), magic);
  v128_t n = wasm_f32x4_sub(shifted, magic);
  // ln 2 in two parts: n times the first is exact.
  v128_t r = multiply_add(n, SPLAT(-0.693359375f), x);
  r = multiply_add(n, SPLAT(2.12194440e-4f), r);
  v128_t power = wasm_i32x4_add(wasm_i32x4_shl(shifted, 23), wasm_i32x4_const_splat(127 << 23));
  return wasm_f32x4_mul(polynomial(r, fit, 6), power);
}

// The error function within 4e-7, exactly -1 and 1 outside -3.9 and 3.9.
INLINE v128_t error_function(v128_t x) {
  static const float over[] = {1.12837903f,     0.191927429f,    0.0529651378f,
                               0.00383629801f,  0.000287444759f, 2.05049643e-06f};
  static const float under[] = {1,             0.503423038f,   0.1147526f,
                                0.0151080471f, 0.00118159523f, 3.82312256e-05f};
  v128_t s = wasm_f32x4_mul(x, x);
  v128_t sign = wasm_v128_and(x, SPLAT(-0.0f));
  v128_t fit = wasm_f32x4_div(wasm_f32x4_mul(x, polynomial(s, over, 5)), polynomial(s, under, 5));
  v128_t far = wasm_f32x4_gt(s, SPLAT(3.9f * 3.9f));
  return wasm_v128_bitselect(wasm_v128_or(sign, SPLAT(1)), fit, far);
}

// tanh(x) within 4e-7.
INLINE v128_t hyperbolic_tangent(v128_t x) {
  static const float over[] = {0.999999907f, 0.133732362f, 0.00348662622f,
                               2.04725047e-05f, 1.3185051e-08f};
  static const float under[] = {1, 0.467065331f, 0.0258421514f, 0.00032714555f, 7.70302484e-07f};
  x = clamp(x, -9.0f, 9.0f);
  v128_t s = wasm_f32x4_mul(x, x);
  return wasm_f32x4_div(wasm_f32x4_mul(x, polynomial(s, over, 4)), polynomial(s, under, 4));
}

// x = cap * tanh(x * by / cap), n of them.
void cap_row(float *x, int n, float by, float cap);

#endif
