// cached_attention_lane: causal attention of grouped queries over a KV cache, a query a lane.
//   y[t,h,:] = sum_j softmax_j(dot(q[t,h], k[j,g]) / sqrt(D)) * v[j,g,:],  g = h / (H / G)
// over positions j up to the query's own, p = position + t, that still stand in the ring; the last
// `window` of them where that is not 0. A lane keeps its query and its sum in registers and meets
// four keys at a time; the softmax is rescaled as larger scores come. No barrier: the choice for
// many queries on adapters that run on a CPU.
// Slots: cache.   Launch: (tokens / WORKGROUP, heads, 1).
// Source: Milakov & Gimelshein 2018 (online softmax).   Reference: cached_attention.
override WORKGROUP: u32 = 16u;

struct Params { tokens: u32, slots: u32, heads: u32, kv_heads: u32, window: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<vec4f>;         // (tokens, heads * D / 4)
@group(0) @binding(3) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;   // (tokens, heads * D / 4)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let token = id.x;
  let head = id.y;
  if (token >= params.tokens) { return; }
  let query = (token * params.heads + head) * HEAD_VEC4S;
  let values = params.kv_heads * HEAD_VEC4S;   // from a key to its value
  let key = head / (params.heads / params.kv_heads) * HEAD_VEC4S;
  // The keys in question: `count` of them from slot `start` on, around the end of the ring.
  let past = position[0] + token + 1u;
  let end = position[0] + params.tokens;
  var low = max(end, params.slots) - params.slots;
  if (params.window > 0u) { low = max(low, max(past, params.window) - params.window); }
  let count = past - low;
  let start = low % params.slots;
  let scale = 1.0 / sqrt(f32(HEAD_SIZE));

  var mine: array<vec4f, HEAD_VEC4S>;
  var sum: array<vec4f, HEAD_VEC4S>;
  for (var i = 0u; i < HEAD_VEC4S; i++) { mine[i] = q[query + i] * scale; }
  var top = -3.4e38;   // largest score so far
  var total = 0.0;     // sum of exp(score - top)
  for (var j = 0u; j < count; j += 4u) {
    let js = vec4u(j, j + 1u, j + 2u, j + 3u);
    let slot = start + min(js, vec4u(count - 1u));
    let at = (slot - select(vec4u(), vec4u(params.slots), slot >= vec4u(params.slots))) * 2u
      * values + key;
    var score = vec4f();
    for (var i = 0u; i < HEAD_VEC4S; i++) {
      score += vec4f(dot(mine[i], cache_at(at.x + i)), dot(mine[i], cache_at(at.y + i)),
                     dot(mine[i], cache_at(at.z + i)), dot(mine[i], cache_at(at.w + i)));
    }
    score = select(vec4f(-3.4e38), score, js < vec4u(count));
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
  for (var i = 0u; i < HEAD_VEC4S; i++) { y[query + i] = sum[i] / total; }
}
