#include "halves.h"

// The first of the highest logits, 0 where all are NaN, becomes y and tokens[(*position + 1) %
// slots], and *position moves on. A NaN ranks below everything else.
EXPORT void argmax_token(uint32_t *y, const float *logits, uint32_t *tokens, uint32_t *position,
                         int vocabulary, int slots) {
  v128_t most = wasm_f32x4_const_splat(-__builtin_inff());
  int i = 0, found = 0;
  for (; i + 4 <= vocabulary; i += 4) most = wasm_f32x4_pmax(most, wasm_v128_load(logits + i));
  float best = wasm_f32x4_extract_lane(most, 0);
  best = wasm_f32x4_extract_lane(most, 1) > best ? wasm_f32x4_extract_lane(most, 1) : best;
  best = wasm_f32x4_extract_lane(most, 2) > best ? wasm_f32x4_extract_lane(most, 2) : best;
  best = wasm_f32x4_extract_lane(most, 3) > best ? wasm_f32x4_extract_lane(most, 3) : best;
  for (; i < vocabulary; i++) best = logits[i] > best ? logits[i] : best;
  while (found < vocabulary && !(logits[found] == best)) found++;
  *y = found < vocabulary ? found : 0;
  *position += 1;
  tokens[*position % slots] = *y;
}
