// attention_lane: softmax(q k^T / sqrt(D)) v for each text and head, a query a lane.
//   y[b,i,h,:] = sum_j softmax_j(dot(q[b,i,h], k[b,j,h]) / sqrt(D)) * v[b,j,h,:],  j < lengths[b]
// A lane keeps its query and its sum in registers and reads the keys one by one; the softmax is
// rescaled as larger scores come, so no score is stored. No barrier: the choice for adapters that
// run on a CPU.
// Slots: heads.   Launch: (queries / WORKGROUP, heads done, batch).
// Source: Milakov & Gimelshein 2018 (online softmax).   Reference: attention.
override WORKGROUP: u32 = 16u;

// This call does `queries` queries from first_query on, of the heads from y_head on: in qkv, which
// holds `kept` heads, those from x_head on. The rest of y is left alone.
struct Params {
  batch: u32, tokens: u32, heads: u32, kept: u32,
  x_head: u32, y_head: u32, first_query: u32, queries: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;   // (batch)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (batch, tokens, heads * D)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let batch = id.z;
  if (batch >= params.batch || id.x >= params.queries) { return; }
  let token = params.first_query + id.x;
  let wide = params.kept * HEAD_SIZE;
  let head = (params.x_head + id.y) * HEAD_SIZE;
  let query = (batch * params.tokens + token) * 3u * wide + head;
  let keys = batch * params.tokens * 3u * wide + wide + head;
  let count = clamp(lengths[batch], 1u, params.tokens);
  let scale = 1.0 / sqrt(f32(HEAD_SIZE));

  var q: array<vec4f, HEAD_VEC4S>;
  var sum: array<vec4f, HEAD_VEC4S>;
  for (var i = 0u; i < HEAD_VEC4S; i++) { q[i] = head_at(query, i) * scale; }
  var top = -3.4e38;   // largest score so far
  var total = 0.0;     // sum of exp(score - top)
  for (var j = 0u; j < count; j++) {
    let key = keys + j * 3u * wide;
    var score = 0.0;
    for (var i = 0u; i < HEAD_VEC4S; i++) { score += dot(q[i], head_at(key, i)); }
    let higher = max(top, score);
    let keep = exp(top - higher);
    let weight = exp(score - higher);
    total = total * keep + weight;
    for (var i = 0u; i < HEAD_VEC4S; i++) {
      sum[i] = sum[i] * keep + head_at(key + wide, i) * weight;
    }
    top = higher;
  }

  let row = (batch * params.tokens + token) * params.heads;
  let start = (row + params.y_head + id.y) * HEAD_SIZE;
  for (var d = 0u; d < HEAD_SIZE; d++) { y[start + d] = sum[d / 4u][d % 4u] / total; }
}
