// A KV cache: rows of G keys and G values of D floats or halves. What belongs to position p stands
// in row p % slots.
#ifndef BASCULE_CACHE_H
#define BASCULE_CACHE_H

#include "halves.h"

// Where rows of the cache lie, whatever they hold.
typedef struct {
  void *at;
  int halves, slots, width;
} Cache;

INLINE void put(Cache cache, int position, int column, const float *x, int n) {
  int first = position % cache.slots * cache.width + column;
  if (cache.halves) {
    narrow((uint16_t *)cache.at + first, x, n);
    return;
  }
  for (int i = 0; i < n; i += 4) {
    wasm_v128_store((float *)cache.at + first + i, wasm_v128_load(x + i));
  }
}

INLINE void get(Cache cache, int position, int column, float *y, int n) {
  int first = position % cache.slots * cache.width + column;
  if (cache.halves) {
    widen(y, (const uint16_t *)cache.at + first, n);
    return;
  }
  for (int i = 0; i < n; i += 4) {
    wasm_v128_store(y + i, wasm_v128_load((const float *)cache.at + first + i));
  }
}

#endif
