#include "functions.h"

// Query rows whose scores are held at once.
#define BLOCK_QUERIES 32
#define ROUNDED(n, to) (((n) + (to)-1) / (to) * (to))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

// Which keys the query in row i sees: see `dot_product_attention` in program/ops/attention.py.
struct Sight {
  int queries, keys, count, causal, window;
};

static int end_of(struct Sight s, int i) {
  int own = i + 1 + s.keys - s.queries;
  int end = s.causal ? MIN(own, s.count) : s.window ? MIN(own + s.window - 1, s.count) : s.count;
  return MAX(end, 1);
}

static int begin_of(struct Sight s, int i) {
  int own = i + 1 + s.keys - s.queries;
  return s.window ? MIN(MAX(own - s.window, 0), end_of(s, i) - 1) : 0;
}

// x[first..end) = softmax(scale * x + bias) there, and 0 before and behind, up to n. No bias: null.
static void softmax_seen(float *x, const float *bias, int first, int end, int n, float scale) {
  float most = 0, sum = 0;
  for (int i = first; i < end; i++) {
    x[i] = x[i] * scale + (bias ? bias[i] : 0);
    most = i == first || x[i] > most ? x[i] : most;
  }
  v128_t top = wasm_f32x4_splat(most);
  for (int i = first; i < end; i += 4) {
    int left = MIN(end - i, 4);
    v128_t v = left == 4 ? wasm_v128_load(x + i) : load_some(x + i, left);
    store_some(x + i, exponential(wasm_f32x4_sub(v, top)), left);
  }
  for (int i = first; i < end; i++) {
    sum += x[i];
  }
  for (int i = 0; i < n; i++) {
    x[i] = i < first || i >= end ? 0 : x[i] / sum;
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

// What a head holds beside its operands; see room_at.
struct Room {
  float *keys, *values, *queries, *scores, *weights;
};

static struct Room room_at(float *scratch, int keys, int size) {
  int wide = ROUNDED(keys, TILE_COLUMNS);
  struct Room room = {.keys = scratch};
  room.values = room.keys + wide * size;
  room.queries = room.values + wide * ROUNDED(size, TILE_COLUMNS);
  room.scores = room.queries + BLOCK_QUERIES * size;
  room.weights = room.scores + BLOCK_QUERIES * wide;
  return room;
}

// One head: rows of q and y lie `wide` apart, those of k and v `narrow`; keys from s.count on are
// not read.
static void attend(float *y, const float *q, int wide, const float *k, const float *v, int narrow,
                   const float *bias, struct Sight s, int size, float scale, struct Room room) {
  int n = s.count;
  for (int j = 0; j < n; j += TILE_COLUMNS) {
    interleave(room.keys + j * size, TILE_COLUMNS, k + j * narrow, narrow, n - j, size);
  }
  for (int j = 0; j < size; j += TILE_COLUMNS) {
    copy_columns(room.values + j * n, v + j, narrow, size - j, n);
  }
  for (int first = 0; first < s.queries; first += BLOCK_QUERIES) {
    int rows = MIN(s.queries - first, BLOCK_QUERIES);
    for (int i = 0; i < rows; i += TILE_ROWS) {
      interleave(room.queries + i * size, TILE_ROWS, q + (first + i) * wide, wide, rows - i, size);
    }
    for (int j = 0; j < n; j += TILE_COLUMNS) {
      multiply_panel(room.scores + j, n, room.queries, room.keys + j * size, rows,
                     MIN(n - j, TILE_COLUMNS), size);
    }
    for (int i = 0; i < rows; i++) {
      const float *added = bias ? bias + (first + i) * s.keys : 0;
      softmax_seen(room.scores + i * n, added, begin_of(s, first + i), end_of(s, first + i), n,
                   scale);
    }
    for (int i = 0; i < rows; i += TILE_ROWS) {
      interleave(room.weights + i * n, TILE_ROWS, room.scores + i * n, n, rows - i, n);
    }
    for (int j = 0; j < size; j += TILE_COLUMNS) {
      multiply_panel(y + first * wide + j, wide, room.weights, room.values + j * n, rows,
                     MIN(size - j, TILE_COLUMNS), n);
    }
  }
}

// y (batch, queries, heads * size) = softmax(scale * q @ k.T + bias) @ v over the keys that a query
// sees: of k and v (batch, keys, kv_heads * size) the first lengths[b] (null: all), within causal
// order and a window (0: none). bias (heads, queries, keys) may be null.
// scratch: dot_product_attention_scratch(keys, size) floats.
EXPORT void dot_product_attention(float *y, const float *q, const float *k, const float *v,
                                  const unsigned *lengths, const float *bias, float *scratch,
                                  int batch, int queries, int keys, int heads, int kv_heads,
                                  int size, int causal, int window, float scale) {
  int wide = heads * size, narrow = kv_heads * size;
  struct Room room = room_at(scratch, keys, size);
  for (int b = 0; b < batch; b++) {
    int count = lengths ? (int)MIN(lengths[b], (unsigned)keys) : keys;
    struct Sight sight = {queries, keys, MAX(count, 1), causal, window};
    for (int h = 0; h < heads; h++) {
      int at = h * size, from = b * keys * narrow + h / (heads / kv_heads) * size;
      attend(y + b * queries * wide + at, q + b * queries * wide + at, wide, k + from, v + from,
             narrow, bias ? bias + h * queries * keys : 0, sight, size, scale, room);
    }
  }
}

EXPORT int dot_product_attention_scratch(int keys, int size) {
  int wide = ROUNDED(keys, TILE_COLUMNS);
  return wide * (size + ROUNDED(size, TILE_COLUMNS) + 2 * BLOCK_QUERIES) + BLOCK_QUERIES * size;
}
