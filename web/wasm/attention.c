#include "functions.h"

// Query rows whose scores are held at once.
#define BLOCK_QUERIES 32
#define ROUNDED(n, to) (((n) + (to)-1) / (to) * (to))

// y = softmax(scale * y) over n floats.
static void softmax_row(float *y, int n, float scale) {
  float most = y[0];
  for (int i = 1; i < n; i++) {
    most = y[i] > most ? y[i] : most;
  }
  v128_t top = wasm_f32x4_splat(most), factor = wasm_f32x4_splat(scale);
  v128_t sums = wasm_f32x4_const_splat(0);
  int i = 0;
  for (; i + 4 <= n; i += 4) {
    v128_t e = exponential(wasm_f32x4_mul(wasm_f32x4_sub(wasm_v128_load(y + i), top), factor));
    wasm_v128_store(y + i, e);
    sums = wasm_f32x4_add(sums, e);
  }
  float sum = sum_lanes(sums);
  if (i < n) {
    v128_t e = wasm_f32x4_sub(load_some(y + i, n - i), top);
    store_some(y + i, exponential(wasm_f32x4_mul(e, factor)), n - i);
  }
  for (int j = i; j < n; j++) {
    sum += y[j];
  }
  v128_t inverse = wasm_f32x4_splat(1 / sum);
  for (i = 0; i + 4 <= n; i += 4) {
    wasm_v128_store(y + i, wasm_f32x4_mul(wasm_v128_load(y + i), inverse));
  }
  for (; i < n; i++) {
    y[i] /= sum;
  }
}

// to[k * TILE_COLUMNS + j] = v[k * stride + j], j < n; the other columns are 0.
static void copy_columns(float *to, const float *v, int stride, int n, int rows) {
  for (; rows > 0; rows--, v += stride, to += TILE_COLUMNS) {
    for (int j = 0; j < TILE_COLUMNS; j++) {
      to[j] = j < n ? v[j] : 0;
    }
  }
}

// What `attention` holds beside its operands.
struct Room {
  float *keys;     // (n / 8, size, 8), the keys of one head interleaved
  float *values;   // (size / 8, n, 8)
  float *queries;  // (BLOCK_QUERIES / 4, size, 4)
  float *scores;   // (BLOCK_QUERIES, n)
  float *weights;  // (BLOCK_QUERIES / 4, n, 4): the scores interleaved
};

// One head of one batch row: n keys, queries from `first` to before `end`. q, k and v stand side by
// side in rows of `stride`; y has rows of `hidden`.
static void attend(float *y, int hidden, const float *q, int stride, int first, int end, int n,
                   int size, struct Room room) {
  const float *k = q + stride / 3, *v = k + stride / 3;
  for (int j = 0; j < n; j += TILE_COLUMNS) {
    interleave(room.keys + j * size, TILE_COLUMNS, k + j * stride, stride, n - j, size);
  }
  for (int j = 0; j < size; j += TILE_COLUMNS) {
    copy_columns(room.values + j * n, v + j, stride, size - j, n);
  }
  for (; first < end; first += BLOCK_QUERIES) {
    int rows = MIN(end - first, BLOCK_QUERIES);
    for (int i = 0; i < rows; i += TILE_ROWS) {
      const float *from = q + (first + i) * stride;
      interleave(room.queries + i * size, TILE_ROWS, from, stride, rows - i, size);
    }
    for (int j = 0; j < n; j += TILE_COLUMNS) {
      multiply_panel(room.scores + j, n, room.queries, room.keys + j * size, rows,
                     MIN(n - j, TILE_COLUMNS), size);
    }
    for (int i = 0; i < rows; i++) {
      softmax_row(room.scores + i * n, n, 1 / __builtin_sqrtf((float)size));
    }
    for (int i = 0; i < rows; i += TILE_ROWS) {
      interleave(room.weights + i * n, TILE_ROWS, room.scores + i * n, n, rows - i, n);
    }
    for (int j = 0; j < size; j += TILE_COLUMNS) {
      multiply_panel(y + first * hidden + j, hidden, room.weights, room.values + j * n, rows,
                     MIN(size - j, TILE_COLUMNS), n);
    }
  }
}

// Bidirectional attention (Vaswani et al. 2017): qkv (batch, tokens, 3 * kept * size) ->
// y (batch, tokens, heads * size) over the first lengths[b] keys, at least one. It does `queries`
// queries from first_query on, of n_heads heads: in qkv from x_head on, in y from y_head on.
// scratch: attention_scratch(tokens, size) floats.
EXPORT void attention(float *y, const float *qkv, const unsigned *lengths, float *scratch,
                      int batch, int tokens, int heads, int kept, int size, int n_heads,
                      int x_head, int y_head, int first_query, int queries) {
  int hidden = heads * size, stride = 3 * kept * size, wide = ROUNDED(tokens, TILE_COLUMNS);
  struct Room room = {.keys = scratch};
  room.values = room.keys + wide * size;
  room.queries = room.values + wide * ROUNDED(size, TILE_COLUMNS);
  room.scores = room.queries + BLOCK_QUERIES * size;
  room.weights = room.scores + BLOCK_QUERIES * wide;
  for (int b = 0; b < batch; b++) {
    unsigned length = MIN(lengths[b], (unsigned)tokens);
    for (int h = 0; h < n_heads; h++) {
      attend(y + b * tokens * hidden + (y_head + h) * size, hidden,
             qkv + b * tokens * stride + (x_head + h) * size, stride, first_query,
             first_query + queries, length ? (int)length : 1, size, room);
    }
  }
}

EXPORT int attention_scratch(int tokens, int size) {
  int wide = ROUNDED(tokens, TILE_COLUMNS);
  return wide * (size + ROUNDED(size, TILE_COLUMNS) + 2 * BLOCK_QUERIES) + BLOCK_QUERIES * size;
}
