// Trigonometric functions and their inverses. Source of the inverses: Cephes (Moshier), atanf.c and
// asinf.c.
#include "trigonometric.h"

EXPORT v128_t sin_f(v128_t x) {
  v128_t y = of_finite(x, turned(angle_of(x), 0));
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y); // -0 too
}

EXPORT v128_t cos_f(v128_t x) { return of_finite(x, turned(angle_of(x), 1)); }

EXPORT v128_t tan_f(v128_t x) {
  Angle angle = angle_of(x);
  v128_t y = of_finite(x, wasm_f32x4_div(turned(angle, 0), turned(angle, 1)));
  return choose(wasm_f32x4_eq(x, SPLAT(0)), x, y);
}

INLINE v128_t arc_tangent(v128_t x) {
  v128_t size = wasm_f32x4_abs(x);
  v128_t far = wasm_f32x4_gt(size, SPLAT(2.414213562f));
  v128_t middle = wasm_f32x4_gt(size, SPLAT(0.4142135624f));
  v128_t t = choose(middle, wasm_f32x4_div(wasm_f32x4_sub(size, SPLAT(1)),
                                           wasm_f32x4_add(size, SPLAT(1))), size);
  t = choose(far, wasm_f32x4_div(SPLAT(-1), size), t);
  v128_t start = choose(far, SPLAT(1.57079633f), wasm_v128_and(middle, SPLAT(0.785398163f)));
  v128_t z = wasm_f32x4_mul(t, t);
  v128_t p = POLYNOMIAL(z, 8.05374449538e-2f, -1.38776856032e-1f, 1.99777106478e-1f,
                        -3.33329491539e-1f);
  v128_t y = wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, z), t), t);
  return signed_as(wasm_f32x4_add(start, y), x);
}

EXPORT v128_t atan_f(v128_t x) { return arc_tangent(x); }

EXPORT v128_t atan2_f(v128_t y, v128_t x) {
  v128_t left = wasm_i32x4_shr(x, 31);
  v128_t infinite = wasm_f32x4_eq(wasm_f32x4_abs(y), INFINITE);
  infinite = wasm_v128_and(infinite, wasm_f32x4_eq(wasm_f32x4_abs(x), INFINITE));
  // y / x of two zeros is 0, of two infinities 1, each by convention.
  v128_t ratio = wasm_f32x4_abs(wasm_f32x4_div(y, x));
  ratio = choose(wasm_f32x4_eq(y, SPLAT(0)), SPLAT(0), choose(infinite, SPLAT(1), ratio));
  v128_t turn = arc_tangent(ratio);
  turn = signed_as(choose(left, wasm_f32x4_sub(SPLAT(3.14159265f), turn), turn), y);
  return choose(wasm_v128_or(is_nan(x), is_nan(y)), NOT_A_NUMBER, turn);
}

INLINE v128_t arc_sine_small(v128_t a) { // 0 to 1/2
  v128_t z = wasm_f32x4_mul(a, a);
  v128_t p = POLYNOMIAL(z, 4.2163199048e-2f, 2.4181311049e-2f, 4.5470025998e-2f, 7.4953002686e-2f,
                        1.6666752422e-1f);
  return wasm_f32x4_add(wasm_f32x4_mul(wasm_f32x4_mul(p, z), a), a);
}

// Twice the arc sine of sqrt((1 - size) / 2), for sizes from 1/2 on; NaN above 1.
INLINE v128_t arc_sine_rest(v128_t size) {
  v128_t half = wasm_f32x4_mul(SPLAT(0.5f), wasm_f32x4_sub(SPLAT(1), size));
  return wasm_f32x4_mul(SPLAT(2), arc_sine_small(wasm_f32x4_sqrt(half)));
}

EXPORT v128_t asin_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x);
  v128_t far = wasm_f32x4_sub(SPLAT(1.57079633f), arc_sine_rest(size));
  v128_t near = wasm_f32x4_le(size, SPLAT(0.5f));
  return signed_as(choose(near, arc_sine_small(size), far), x);
}

EXPORT v128_t acos_f(v128_t x) {
  v128_t size = wasm_f32x4_abs(x), y = arc_sine_rest(size);
  v128_t near = wasm_f32x4_sub(SPLAT(1.57079633f), signed_as(arc_sine_small(size), x));
  v128_t far = choose(wasm_f32x4_lt(x, SPLAT(0)), wasm_f32x4_sub(SPLAT(3.14159265f), y), y);
  return choose(wasm_f32x4_le(size, SPLAT(0.5f)), near, far);
}
