// dot_product_attention: softmax(scale * q k^T + bias) v for each text and head, a query a lane.
//   y[b,i,h,:] = sum_j softmax_j(scale * dot(q[b,i,h], k[b,j,g]) + bias[h,i,j]) * v[b,j,g,:]
// over the keys j that query i may see; g = h * G / H. The softmax is rescaled as larger scores
// come, so no score is stored. No barrier.
// Slots: key_count, score_bias.   Launch: (queries / WORKGROUP, heads, batch).
// Source: Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax).
// Reference: dot_product_attention.
override WORKGROUP: u32 = 16u;

// queries and keys of a text; the last query stands beside the last key. causal: 0 or 1.
struct Params {
  batch: u32, queries: u32, keys: u32, heads: u32, kv_heads: u32, causal: u32, window: u32,
  scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> q: array<f32>;         // (batch, queries, heads * D)
@group(0) @binding(2) var<storage, read> k: array<f32>;         // (batch, keys, kv_heads * D)
@group(0) @binding(3) var<storage, read> v: array<f32>;         // (batch, keys, kv_heads * D)
@group(0) @binding(6) var<storage, read_write> y: array<f32>;   // (batch, queries, heads * D)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let batch = id.z;
  let head = id.y;
  if (batch >= params.batch || id.x >= params.queries) { return; }
  let start = ((batch * params.queries + id.x) * params.heads + head) * HEAD_SIZE;
  let kv_head = head / (params.heads / params.kv_heads);
  let wide = params.kv_heads * HEAD_SIZE;
  let first = batch * params.keys * wide + kv_head * HEAD_SIZE;
  let biases = (head * params.queries + id.x) * params.keys;

  // One past the query's own key, which may stand before the first one.
  let own = i32(id.x) + 1 + i32(params.keys) - i32(params.queries);
  var end = clamp(key_count(batch), 1u, params.keys);
  if (params.causal != 0u) { end = u32(clamp(own, 1, i32(end))); }
  var begin = 0u;
  if (params.window != 0u && params.causal == 0u) {
    end = u32(clamp(own + i32(params.window) - 1, 1, i32(end)));
  }
  if (params.window != 0u) { begin = min(u32(max(own - i32(params.window), 0)), end - 1u); }

  var query: array<f32, HEAD_SIZE>;
  var sum: array<f32, HEAD_SIZE>;
  for (var d = 0u; d < HEAD_SIZE; d++) {
    query[d] = q[start + d] * params.scale;
    sum[d] = 0.0;
  }
  var top = -3.4e38;   // largest score so far
  var total = 0.0;     // sum of exp(score - top)
  for (var j = begin; j < end; j++) {
    let at = first + j * wide;
    var score = score_bias(biases + j);
    for (var d = 0u; d < HEAD_SIZE; d++) { score += query[d] * k[at + d]; }
    let higher = max(top, score);
    let keep = exp(top - higher);
    let weight = exp(score - higher);
    total = total * keep + weight;
    for (var d = 0u; d < HEAD_SIZE; d++) { sum[d] = sum[d] * keep + v[at + d] * weight; }
    top = higher;
  }
  for (var d = 0u; d < HEAD_SIZE; d++) { y[start + d] = sum[d] / total; }
}
