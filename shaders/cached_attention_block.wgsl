// cached_attention_block: causal attention of grouped queries over a KV cache, by blocks.
//   y[t,h,:] = sum_j softmax_j(capped(dot(q[t,h], k[j,g]) * scale)) * v[j,g,:],  g = h / (H / G)
// over positions j up to the query's own, p = position + t, that the ring still holds; the last
// `window` of them where that is not 0. A workgroup owns ROWS rows (see the part) of a KV head and
// reads KEYS keys at a time: scores in tiles of 4 x 4, a softmax that is rescaled as larger scores
// come, then sums of 4 rows and 2 vec4 columns a lane. The choice for many queries on hardware.
// Slots: cache, rows, cap.   Launch: (queries * sharing / ROWS, KV heads done, 1).
// Reference: cached_attention.
// Source: Dao et al. 2022 (tiled, with online softmax).
override ROWS: u32 = 32u;        // a multiple of 4
override KEYS: u32 = 32u;        // a multiple of 4
override WORKGROUP: u32 = 64u;   // a multiple of ROWS / 4, at least ROWS / 4 * ceil(D / 8)

struct Params { tokens: u32, slots: u32, heads: u32, kept: u32, window: u32, sharing: u32,
                x_head: u32, y_head: u32, first_query: u32, queries: u32,   // see the part rows
                scale: f32, softcap: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;         // (tokens, heads * D / 4)
@group(0) @binding(3) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;   // (tokens, heads * D / 4)

var<workgroup> scores: array<vec4f, KEYS * ROWS / 4u>;   // (keys, rows / 4), then weights
var<workgroup> totals: array<vec4f, WORKGROUP>;          // a lane's share, of four rows

fn outer(v: vec4f, w: vec4f) -> mat4x4f {
  return mat4x4f(v * w.x, v * w.y, v * w.z, v * w.w);
}

fn scaled(m: mat4x4f, by: vec4f) -> mat4x4f {
  return mat4x4f(m[0] * by.x, m[1] * by.y, m[2] * by.z, m[3] * by.w);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x * ROWS;
  if (row >= row_count()) { return; }
  let since = span_of(vec4u(row)).since.x;
  let until = span_of(vec4u(row + ROWS - 1u)).until.x;
  let head = (params.x_head + group.y) * HEAD_VEC4S;
  let pitch = 2u * params.kept * HEAD_VEC4S;   // of a slot, keys first, values behind
  let four = vec4u(0u, 1u, 2u, 3u);
  let quads = ROWS / 4u;          // fours of rows
  let quad = lane % quads;
  let stripe = lane / quads;      // of keys in the softmax, of two columns in the sums
  let col = 2u * stripe;

  var top = vec4f(HIDDEN);   // largest scores so far, of four rows
  var total = vec4f();       // sums of exp(score - top) over this stripe
  var left = mat4x4f();      // sums of four rows, a column each, for vec4s `col` and col + 1
  var right = mat4x4f();
  for (var start = since; start < until; start += KEYS) {
    for (var tile = lane; tile < quads * KEYS / 4u; tile += WORKGROUP) {
      let key = tile / quads * 4u;
      let at = min(start + key + four, vec4u(until - 1u)) % params.slots * pitch + head;
      let rows = row + tile % quads * 4u + four;
      let query = rows_at(rows, group.y);
      var s = mat4x4f();   // a column a key
      for (var i = 0u; i < HEAD_VEC4S; i++) {
        let m = mat4x4f(q[query.x + i], q[query.y + i], q[query.z + i], q[query.w + i]);
        s += mat4x4f(cache_at(at.x + i) * m, cache_at(at.y + i) * m, cache_at(at.z + i) * m,
                     cache_at(at.w + i) * m);
      }
      s *= params.scale;
      let span = span_of(rows);
      let out = key * quads + tile % quads;
      scores[out] = seen(capped(s[0]), start + key, span);
      scores[out + quads] = seen(capped(s[1]), start + key + 1u, span);
      scores[out + 2u * quads] = seen(capped(s[2]), start + key + 2u, span);
      scores[out + 3u * quads] = seen(capped(s[3]), start + key + 3u, span);
    }
    workgroupBarrier();   // the scores stand
    let before = top;
    for (var j = 0u; j < KEYS; j++) { top = max(top, scores[j * quads + quad]); }
    workgroupBarrier();   // everyone knows the largest
    let scale = exp(before - top);
    total *= scale;
    for (var j = stripe; j < KEYS; j += WORKGROUP / quads) {
      let score = scores[j * quads + quad];
      let weight = select(exp(score - top), vec4f(), score <= vec4f(HIDDEN));
      scores[j * quads + quad] = weight;
      total += weight;
    }
    workgroupBarrier();   // the scores have become weights
    left = scaled(left, scale);
    right = scaled(right, scale);
    for (var j = 0u; j < min(KEYS, until - start) && col < HEAD_VEC4S; j++) {
      let at = (start + j) % params.slots * pitch + pitch / 2u + head + col;
      left += outer(cache_at(at), scores[j * quads + quad]);
      right += outer(cache_at(at + 1u), scores[j * quads + quad]);   // past D it is not stored
    }
    workgroupBarrier();   // everyone is done before the scores are filled again
  }

  totals[lane] = total;
  workgroupBarrier();   // every stripe has left its share
  var whole = vec4f();
  for (var i = quad; i < WORKGROUP; i += quads) { whole += totals[i]; }
  let at = rows_at(row + 4u * quad + four, group.y);
  for (var k = 0u; k < 4u && row + 4u * quad + k < row_count(); k++) {
    if (col < HEAD_VEC4S) { y[at[k] + col] = left[k] / whole[k]; }
    if (col + 1u < HEAD_VEC4S) { y[at[k] + col + 1u] = right[k] / whole[k]; }
  }
}
