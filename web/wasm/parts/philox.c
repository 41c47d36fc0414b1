// Random words for a key and a counter. Source: Salmon et al. 2011, "Parallel random numbers: as easy
// as 1, 2, 3": Philox 4x32 with ten rounds.
#include "parts.h"

typedef struct {
  v128_t low, high;
} Product;

// The lower and upper words of a * b.
INLINE Product product_of(v128_t a, unsigned b) {
  v128_t factor = wasm_u32x4_splat(b);
  v128_t first = wasm_u64x2_extmul_low_u32x4(a, factor);
  v128_t last = wasm_u64x2_extmul_high_u32x4(a, factor);
  return (Product){wasm_i32x4_shuffle(first, last, 0, 2, 4, 6),
                   wasm_i32x4_shuffle(first, last, 1, 3, 5, 7)};
}

// Words `at` of the stream that the key names: four words a counter.
EXPORT v128_t philox(v128_t at, v128_t low, v128_t high) {
  v128_t zero = wasm_i32x4_const_splat(0);
  v128_t c0 = wasm_u32x4_shr(at, 2), c1 = zero, c2 = zero, c3 = zero;
  for (int i = 0; i < 10; i++) {
    Product first = product_of(c0, 0xd2511f53u), second = product_of(c2, 0xcd9e8d57u);
    c0 = wasm_v128_xor(wasm_v128_xor(second.high, c1), low);
    c1 = second.low;
    c2 = wasm_v128_xor(wasm_v128_xor(first.high, c3), high);
    c3 = first.low;
    low = wasm_i32x4_add(low, wasm_u32x4_const_splat(0x9e3779b9u));
    high = wasm_i32x4_add(high, wasm_u32x4_const_splat(0xbb67ae85u));
  }
  v128_t odd = wasm_i32x4_shr(wasm_i32x4_shl(at, 31), 31);
  v128_t upper = wasm_i32x4_shr(wasm_i32x4_shl(at, 30), 31);
  return choose(upper, choose(odd, c3, c2), choose(odd, c1, c0));
}
