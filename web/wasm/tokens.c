#include "functions.h"
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

typedef struct { uint32_t text_first, times_first, times_end, is_first; } Rules;

INLINE int is_allowed(uint32_t i, uint32_t kind, const Rules *rules, uint32_t times) {
  uint32_t first = i < times ? rules->text_first : rules->times_first;
  return kind + rules->is_first < 2 && i >= first && (i < times || i < rules->times_end);
}

// The first of the highest logits that kinds and rules allow becomes y[0] and
// tokens[(*position + 1) % slots], its probability among them y[1], and *position moves on. Ids from
// `times` on stand for times; where those allowed are likelier together than any allowed text, only
// they are. Where a logit is not finite or none is allowed, y[0] is -1 and the token 0xffffffff.
EXPORT void allowed_token(float *y, const float *logits, uint32_t *tokens, uint32_t *position,
                          const uint32_t *kinds, const Rules *rules, int vocabulary, int slots,
                          int times) {
  int best[2] = {-1, -1};  // of text, of times
  int known = 1;
  for (int i = 0; i < vocabulary; i++) {
    known = known && __builtin_fabsf(logits[i]) < __builtin_inff();
    if (!is_allowed(i, kinds[i], rules, times)) continue;
    int *found = best + (i >= times);
    if (*found < 0 || logits[i] > logits[*found]) *found = i;
  }
  int chosen = best[0] < 0 || (best[1] >= 0 && logits[best[1]] > logits[best[0]]) ? best[1] : best[0];
  *position += 1;
  uint32_t *next = tokens + *position % slots;
  if (!known || chosen < 0) {
    *next = 0xffffffffu;
    y[0] = -1;
    y[1] = 0;
    return;
  }
  v128_t most = wasm_f32x4_splat(logits[chosen]);
  float masses[2] = {0, 0};
  for (int i = 0; i < vocabulary; i += 4) {
    int n = MIN(4, vocabulary - i);
    v128_t x = n == 4 ? wasm_v128_load(logits + i) : load_some(logits + i, n);
    float weights[4];
    wasm_v128_store(weights, exponential(wasm_f32x4_sub(x, most)));
    for (int k = 0; k < n; k++) {
      if (is_allowed(i + k, kinds[i + k], rules, times)) masses[i + k >= times] += weights[k];
    }
  }
  float total = masses[0] + masses[1], weight = 1;
  if (best[1] >= 0) {
    float text = 0;
    if (best[0] >= 0) {
      text = wasm_f32x4_extract_lane(exponential(wasm_f32x4_sub(wasm_f32x4_splat(logits[best[0]]), most)), 0);
    }
    if (masses[1] > text) {
      v128_t time = wasm_f32x4_splat(logits[best[1]]);
      weight = wasm_f32x4_extract_lane(exponential(wasm_f32x4_sub(time, most)), 0);
      chosen = best[1];
      total = masses[1];
    }
  }
  *next = (uint32_t)chosen;
  y[0] = (float)chosen;
  y[1] = weight / total;
}
