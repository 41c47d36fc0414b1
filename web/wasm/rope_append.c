#include "cache.h"

// cos and sin of a position's D / 2 angles: row p % 256 turned by row 256 + p / 256.
INLINE void turn_of(float *cosines, float *sines, const float *angles, int position, int size) {
  const float *low = angles + position % 256 * size, *high = angles + (256 + position / 256) * size;
  int half = size / 2;
  for (int i = 0; i < half; i++) {
    cosines[i] = low[i] * high[i] - low[half + i] * high[half + i];
    sines[i] = low[i] * high[half + i] + low[half + i] * high[i];
  }
}

// A head's pairs as complex numbers, turned: element i * step with the one `apart` behind it.
INLINE void turn_head(float *y, const float *x, const float *cosines, const float *sines,
                      int half, int step, int apart) {
  for (int i = 0; i < half; i++) {
    float real = x[i * step], imaginary = x[i * step + apart];
    y[i * step] = real * cosines[i] - imaginary * sines[i];
    y[i * step + apart] = real * sines[i] + imaginary * cosines[i];
  }
}

// Rotary embedding of q and k in qkv (rows, (heads + 2 kv_heads) * size), from *position on;
// k and v go into the cache, q into y (rows, heads * size).
// scratch: rope_append_scratch(kv_heads, size) floats.
EXPORT void rope_append(float *y, const float *qkv, void *cache, const float *angles,
                        const uint32_t *position, float *scratch, int halves, int slots, int rows,
                        int heads, int kv_heads, int size, int adjacent) {
  int wide = kv_heads * size, half = size / 2;
  Cache to = {cache, halves, slots, 2 * wide};
  float *cosines = scratch, *sines = cosines + half, *keys = sines + half;
  for (int row = 0; row < rows; row++, qkv += (heads + 2 * kv_heads) * size) {
    int at = *position + row;
    turn_of(cosines, sines, angles, at, size);
    for (int head = 0; head < heads + kv_heads; head++) {
      float *to_head = y + (row * heads + head) * size;
      to_head = head < heads ? to_head : keys + (head - heads) * size;
      if (adjacent) {
        turn_head(to_head, qkv + head * size, cosines, sines, half, 2, 1);
      } else {
        turn_head(to_head, qkv + head * size, cosines, sines, half, 1, half);
      }
    }
    put(to, at, 0, keys, wide);
    put(to, at, wide, qkv + (heads + kv_heads) * size, wide);
  }
}

EXPORT int rope_append_scratch(int kv_heads, int size) {
  return (1 + kv_heads) * size;
}
