#include "cache.h"
#include "functions.h"

#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ROUNDED(n, to) (((n) + (to)-1) / (to) * (to))

// So few rows meet the cache one by one; more of them share its rearranged keys and values.
enum { FEW_ROWS = 4 };

// How a product of a query and a key becomes a score: times `scale`, then within -cap and cap
// unless cap is 0.
typedef struct {
  float scale, cap;
} Scores;

// x[first..last] = softmax(their scores), and 0 before and behind, up to n.
static void softmax_between(float *x, int first, int last, int n, Scores scores) {
  float scale = scores.cap ? 1 : scores.scale;
  if (scores.cap) {
    cap_row(x + first, last + 1 - first, scores.scale, scores.cap);
  }
  float most = x[first];
  for (int i = first; i <= last; i++) {
    most = x[i] > most ? x[i] : most;
  }
  v128_t top = wasm_f32x4_splat(most), factor = wasm_f32x4_splat(scale);
  float sum = 0;
  for (int i = first; i <= last; i += 4) {
    int left = MIN(last + 1 - i, 4);
    v128_t v = left == 4 ? wasm_v128_load(x + i) : load_some(x + i, left);
    store_some(x + i, exponential(wasm_f32x4_mul(wasm_f32x4_sub(v, top), factor)), left);
  }
  for (int i = first; i <= last; i++) {
    sum += x[i];
  }
  for (int i = 0; i < n; i++) {
    x[i] = i < first || i > last ? 0 : x[i] / sum;
  }
}

// y += by * x.
INLINE void add_times(float *y, const float *x, float by, int n) {
  v128_t factor = wasm_f32x4_splat(by);
  for (int i = 0; i < n; i += 4) {
    wasm_v128_store(y + i, multiply_add(wasm_v128_load(x + i), factor, wasm_v128_load(y + i)));
  }
}

// One row of queries over positions `first` to `last`. The cache is read as it lies, once: of each
// half of its rows kv_heads heads from `column` on.
// room: kv_heads * size + heads * (last + 1 - first) floats.
static void attend_row(float *y, const float *q, Cache cache, int column, int first, int last,
                       int heads, int kv_heads, int size, float *room, Scores kind) {
  int met = last + 1 - first, grouped = heads / kv_heads, wide = kv_heads * size;
  float *row = room, *scores = row + wide;
  for (int i = 0; i < met; i++) {
    get(cache, first + i, column, row, wide);
    for (int head = 0; head < heads; head++) {
      scores[head * met + i] = dot(q + head * size, row + head / grouped * size, size);
    }
  }
  for (int head = 0; head < heads; head++) {
    softmax_between(scores + head * met, 0, met - 1, met, kind);
  }
  for (int i = 0; i < heads * size; i++) {
    y[i] = 0;
  }
  for (int i = 0; i < met; i++) {
    get(cache, first + i, cache.width / 2 + column, row, wide);
    for (int head = 0; head < heads; head++) {
      add_times(y + head * size, row + head / grouped * size, scores[head * met + i], size);
    }
  }
}

// What `attend_rows` holds beside its operands.
struct Room {
  float *rows;     // (TILE_COLUMNS, size), keys or a value as they lie
  float *keys;     // (met / 8, size, 8), interleaved
  float *values;   // (size / 8, met, 8)
  float *queries;  // (rows / 4, size, 4)
  float *scores;   // (rows, met)
  float *weights;  // (rows / 4, met, 4): the scores interleaved
};

static struct Room room_at(float *scratch, int met, int rows, int size) {
  struct Room room = {.rows = scratch};
  room.keys = room.rows + TILE_COLUMNS * size;
  room.values = room.keys + ROUNDED(met, TILE_COLUMNS) * size;
  room.queries = room.values + met * ROUNDED(size, TILE_COLUMNS);
  room.scores = room.queries + ROUNDED(rows, TILE_ROWS) * size;
  room.weights = room.scores + rows * met;
  return room;
}

static void read_keys(struct Room room, Cache cache, int first, int met, int column, int size) {
  for (int i = 0; i < met; i += TILE_COLUMNS) {
    int n = MIN(met - i, TILE_COLUMNS);
    for (int j = 0; j < n; j++) {
      get(cache, first + i + j, column, room.rows + j * size, size);
    }
    interleave(room.keys + i * size, TILE_COLUMNS, room.rows, size, n, size);
  }
}

static void read_values(struct Room room, Cache cache, int first, int met, int column, int size) {
  for (int i = 0; i < met; i++) {
    get(cache, first + i, column, room.rows, size);
    for (int d = 0; d < size; d += 4) {
      float *panel = room.values + d / TILE_COLUMNS * TILE_COLUMNS * met;
      float *to = panel + i * TILE_COLUMNS + d % TILE_COLUMNS;
      wasm_v128_store(to, wasm_v128_load(room.rows + d));
    }
  }
}

// One head of many rows, `stride` apart: the first meets keys up to `last`, each one more than the
// row before it, and the last `window` of them.
static void attend_rows(float *y, const float *q, int stride, struct Room room, int rows, int met,
                        int size, int last, int window, Scores kind) {
  for (int i = 0; i < rows; i += TILE_ROWS) {
    interleave(room.queries + i * size, TILE_ROWS, q + i * stride, stride, rows - i, size);
  }
  for (int i = 0; i < met; i += TILE_COLUMNS) {
    multiply_panel(room.scores + i, met, room.queries, room.keys + i * size, rows,
                   MIN(met - i, TILE_COLUMNS), size);
  }
  for (int i = 0; i < rows; i++, last++) {
    int first = window ? MAX(last - window + 1, 0) : 0;
    softmax_between(room.scores + i * met, first, last, met, kind);
  }
  for (int i = 0; i < rows; i += TILE_ROWS) {
    interleave(room.weights + i * met, TILE_ROWS, room.scores + i * met, met, rows - i, met);
  }
  for (int d = 0; d < size; d += TILE_COLUMNS) {
    multiply_panel(y + d, stride, room.weights, room.values + d * met, rows,
                   MIN(size - d, TILE_COLUMNS), met);
  }
}

// y (rows, heads * size) = causal attention of q, groups of heads over the keys of one, where row i
// stands at *position + i and meets positions up to its own, the last `window` of them (0: all).
// Scores are products * scale, within -cap and cap unless cap is 0. It does `queries` rows from first_query on, of the heads from y_head on; they share kv_heads KV
// heads: in the cache, which holds `kept`, those from x_head on.
// scratch: cached_attention_scratch(slots, queries, n_heads, size) floats.
EXPORT void cached_attention(float *y, const float *q, void *cache, const uint32_t *position,
                             float *scratch, int halves, int slots, int rows, int heads, int kept,
                             int size, int window, int n_heads, int kv_heads, int x_head,
                             int y_head, int first_query, int queries, float scale, float cap) {
  Scores kind = {scale, cap};
  int first = *position + first_query, grouped = n_heads / kv_heads, wide = heads * size;
  int oldest = MAX((int)*position + rows - slots, 0);
  int begin = MAX(oldest, window ? first - window + 1 : 0);
  int met = first + queries - begin;
  Cache from = {cache, halves, slots, 2 * kept * size};
  y += first_query * wide + y_head * size;
  q += first_query * wide + y_head * size;
  if (queries < FEW_ROWS) {
    for (int i = 0; i < queries; i++, y += wide, q += wide) {
      int at = first + i, least = window ? MAX(at - window + 1, begin) : begin;
      attend_row(y, q, from, x_head * size, least, at, n_heads, kv_heads, size, scratch,
                 kind);
    }
    return;
  }
  struct Room room = room_at(scratch, met, queries, size);
  for (int group = 0; group < kv_heads; group++) {
    read_keys(room, from, begin, met, (x_head + group) * size, size);
    read_values(room, from, begin, met, (kept + x_head + group) * size, size);
    for (int head = group * grouped; head < (group + 1) * grouped; head++) {
      int at = head * size;
      attend_rows(y + at, q + at, wide, room, queries, met, size, first - begin, window, kind);
    }
  }
}

EXPORT int cached_attention_scratch(int slots, int queries, int n_heads, int size) {
  if (queries < FEW_ROWS) {
    return n_heads * (size + slots);
  }
  int met = ROUNDED(slots, TILE_COLUMNS), wide = ROUNDED(size, TILE_COLUMNS);
  int many = ROUNDED(queries, TILE_ROWS);
  return (TILE_COLUMNS + many) * wide + 2 * met * (wide + many);
}
