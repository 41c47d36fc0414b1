// What the parts share. A part is one function of four lanes that refers to nothing outside itself
// (no memory, no other function, no constant in memory): its compiled body is copied as it is into
// the modules that arrays make for chains of operations (py/bascule/backend/wasm/parts.py), and into
// their loops where it has no branches (inlining.py).
// Lanes take no branches: each way is computed, and masks choose. NaN stays NaN.
#ifndef BASCULE_PARTS_H
#define BASCULE_PARTS_H

#include "../kernels.h"

#define SPLAT(value) wasm_f32x4_const_splat(value)
#define INFINITE SPLAT(__builtin_inff())
#define NOT_A_NUMBER SPLAT(__builtin_nanf(""))

// a where the mask is set, else b.
INLINE v128_t choose(v128_t mask, v128_t a, v128_t b) { return wasm_v128_bitselect(a, b, mask); }

INLINE v128_t signed_as(v128_t size, v128_t sign) {
  return wasm_v128_bitselect(sign, size, wasm_u32x4_const_splat(0x80000000u));
}

INLINE v128_t is_nan(v128_t x) { return wasm_f32x4_ne(x, x); }

// c[0] * x^(n - 1) + ... + c[n - 1].
#define POLYNOMIAL(x, ...)                                                                         \
  ({                                                                                               \
    const float fit[] = {__VA_ARGS__};                                                             \
    v128_t sum = wasm_f32x4_splat(fit[0]);                                                         \
    for (int i = 1; i < (int)(sizeof fit / sizeof *fit); i++) {                                    \
      sum = multiply_add(sum, x, wasm_f32x4_splat(fit[i]));                                        \
    }                                                                                              \
    sum;                                                                                           \
  })

#endif
