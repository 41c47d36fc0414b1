// cached_attention_split: causal attention of grouped queries over a KV cache, keys split.
//   y[t,h,:] = sum_j softmax_j(capped(dot(q[t,h], k[j,g]) * scale)) * v[j,g,:],  g = h / (H / G)
// over positions j up to the query's own, p = position + t, that the ring still holds; the last
// `window` of them where that is not 0. A workgroup owns a row (see the part) of a KV head; its
// lanes take four keys at a time in turn, each with a softmax of its own, and merge them at the
// end. The choice for few queries on hardware.
// Slots: cache, rows, cap.   Launch: (queries * sharing, KV heads done, 1).
// Reference: cached_attention.
// Source: Dao et al. 2023 (Flash-Decoding).
override WORKGROUP: u32 = 64u;

struct Params { tokens: u32, slots: u32, heads: u32, kept: u32, window: u32, sharing: u32,
                x_head: u32, y_head: u32, first_query: u32, queries: u32,   // see the part rows
                scale: f32, softcap: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;         // (tokens, heads * D / 4)
@group(0) @binding(3) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;   // (tokens, heads * D / 4)

var<workgroup> tops: array<f32, WORKGROUP>;
var<workgroup> totals: array<f32, WORKGROUP>;
var<workgroup> sums: array<vec4f, WORKGROUP * HEAD_VEC4S>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  if (group.x >= row_count()) { return; }
  let query = rows_at(vec4u(group.x), group.y).x;
  let span = span_of(vec4u(group.x));
  let count = span.until.x - span.since.x;
  let start = span.since.x % params.slots;     // the slot of the first key
  let head = (params.x_head + group.y) * HEAD_VEC4S;
  let values = params.kept * HEAD_VEC4S;   // from a key to its value

  var mine: array<vec4f, HEAD_VEC4S>;
  var sum: array<vec4f, HEAD_VEC4S>;
  for (var i = 0u; i < HEAD_VEC4S; i++) { mine[i] = q[query + i] * params.scale; }
  var top = HIDDEN;   // largest score so far
  var total = 0.0;     // sum of exp(score - top)
  for (var j = lane * 4u; j < count; j += WORKGROUP * 4u) {
    let js = vec4u(j, j + 1u, j + 2u, j + 3u);
    let slot = start + min(js, vec4u(count - 1u));
    let at = (slot - select(vec4u(), vec4u(params.slots), slot >= vec4u(params.slots))) * 2u
      * values + head;
    var score = vec4f();
    for (var i = 0u; i < HEAD_VEC4S; i++) {
      score += vec4f(dot(mine[i], cache_at(at.x + i)), dot(mine[i], cache_at(at.y + i)),
                     dot(mine[i], cache_at(at.z + i)), dot(mine[i], cache_at(at.w + i)));
    }
    score = select(vec4f(HIDDEN), capped(score), js < vec4u(count));
    let higher = max(top, max(max(score.x, score.y), max(score.z, score.w)));
    let keep = exp(top - higher);
    let weight = exp(score - higher);
    total = total * keep + weight.x + weight.y + weight.z + weight.w;
    let value = at + values;
    for (var i = 0u; i < HEAD_VEC4S; i++) {
      sum[i] = sum[i] * keep + cache_at(value.x + i) * weight.x + cache_at(value.y + i) * weight.y
        + cache_at(value.z + i) * weight.z + cache_at(value.w + i) * weight.w;
    }
    top = higher;
  }

  tops[lane] = top;
  totals[lane] = total;
  for (var i = 0u; i < HEAD_VEC4S; i++) { sums[lane * HEAD_VEC4S + i] = sum[i]; }
  workgroupBarrier();   // every lane has left its share
  var highest = top;
  for (var i = 0u; i < WORKGROUP; i++) { highest = max(highest, tops[i]); }
  var whole = 0.0;
  for (var i = 0u; i < WORKGROUP; i++) { whole += totals[i] * exp(tops[i] - highest); }
  for (var c = lane; c < HEAD_VEC4S; c += WORKGROUP) {
    var merged = vec4f();
    for (var i = 0u; i < WORKGROUP; i++) {
      merged += sums[i * HEAD_VEC4S + c] * exp(tops[i] - highest);
    }
    y[query + c] = merged / whole;
  }
}
