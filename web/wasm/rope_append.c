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
// k and v go into the cache, q into y (rows, heads * size). The cache holds `kept` KV heads from
// first_kept on: they and the heads that share them are done, the rest of y is left alone.
// scratch: rope_append_scratch(kept, size) floats.
EXPORT void rope_append(float *y, const float *qkv, void *cache, const float *angles,
                        const uint32_t *position, float *scratch, int halves, int slots, int rows,
                        int heads, int kv_heads, int size, int adjacent, int first_kept, int kept) {
  int wide = kept * size, half = size / 2, begin = heads / kv_heads * first_kept;
  int end = heads / kv_heads * (first_kept + kept), pitch = (heads + 2 * kv_heads) * size;
  Cache to = {cache, halves, slots, 2 * wide};
  float *cosines = scratch, *sines = cosines + half, *keys = sines + half;
  for (int row = 0; row < rows; row++, qkv += pitch, y += heads * size) {
    int at = *position + row;
    turn_of(cosines, sines, angles, at, size);
    const float *key = qkv + (heads + first_kept) * size;
    for (int head = begin; head < end + kept; head++) {
      int of_keys = (head - end) * size;
      float *to_head = head < end ? y + head * size : keys + of_keys;
      const float *from = head < end ? qkv + head * size : key + of_keys;
      if (adjacent) {
        turn_head(to_head, from, cosines, sines, half, 2, 1);
      } else {
        turn_head(to_head, from, cosines, sines, half, 1, half);
      }
    }
    put(to, at, 0, keys, wide);
    put(to, at, wide, key + kv_heads * size, wide);
  }
}

EXPORT int rope_append_scratch(int kept, int size) {
  return (1 + kept) * size;
}

// Heads of `size` in x (batch, tokens, heads * size), turned by the angles (rows, size) of their
// tokens' positions; those past the table take its last row.
EXPORT void rope(float *y, const float *x, const float *angles, int batch, int tokens, int heads,
                 int size, int rows) {
  int half = size / 2;
  for (int at = 0; at < batch * tokens; at++) {
    const float *turn = angles + MIN(at % tokens, rows - 1) * size;
    for (int head = 0; head < heads; head++, x += size, y += size) {
      turn_head(y, x, turn, turn + half, half, 1, half);
    }
  }
}
