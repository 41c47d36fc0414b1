#include "halves.h"

// The first of the highest logits becomes y and tokens[(*position + 1) % slots], and *position moves
// on. Where one is NaN, or the highest infinite, that is 0xffffffff.
EXPORT void argmax_token(uint32_t *y, const float *logits, uint32_t *tokens, uint32_t *position,
                         int vocabulary, int slots) {
  v128_t most = wasm_f32x4_const_splat(-__builtin_inff()), unknown = wasm_i32x4_const_splat(0);
  int i = 0, found = 0;
  for (; i + 4 <= vocabulary; i += 4) {
    v128_t x = wasm_v128_load(logits + i);
    most = wasm_f32x4_pmax(most, x);
    unknown = wasm_v128_or(unknown, wasm_f32x4_ne(x, x));  // only a NaN differs from itself
  }
  float best = wasm_f32x4_extract_lane(most, 0);
  best = wasm_f32x4_extract_lane(most, 1) > best ? wasm_f32x4_extract_lane(most, 1) : best;
  best = wasm_f32x4_extract_lane(most, 2) > best ? wasm_f32x4_extract_lane(most, 2) : best;
  best = wasm_f32x4_extract_lane(most, 3) > best ? wasm_f32x4_extract_lane(most, 3) : best;
  int known = !wasm_v128_any_true(unknown);
  for (; i < vocabulary; i++) {
    best = logits[i] > best ? logits[i] : best;
    known = known && logits[i] == logits[i];
  }
  while (found < vocabulary && !(logits[found] == best)) found++;
  *y = known && __builtin_fabsf(best) < __builtin_inff() ? (uint32_t)found : 0xffffffffu;
  *position += 1;
  tokens[*position % slots] = *y;
}
