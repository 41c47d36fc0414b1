// attention_tile: softmax(q k^T / sqrt(D)) v for each text and head, keys in workgroup memory.
//   y[b,i,h,:] = sum_j softmax_j(dot(q[b,i,h], k[b,j,h]) / sqrt(D)) * v[b,j,h,:],  j < lengths[b]
// A workgroup owns WORKGROUP queries of one head and loads KEYS keys and values at a time for all
// of them; a lane owns a query and rescales its softmax as larger scores come. The choice for
// hardware adapters.
// Slots: heads.   Launch: (queries / WORKGROUP, heads done, batch).
// Source: Dao et al. 2022 (tiled, with online softmax).   Reference: attention.
override WORKGROUP: u32 = 64u;
override KEYS: u32 = 16u;

// This call does `queries` queries from first_query on, of the heads from y_head on: in qkv, which
// holds `kept` heads, those from x_head on. The rest of y is left alone.
struct Params {
  batch: u32, tokens: u32, heads: u32, kept: u32,
  x_head: u32, y_head: u32, first_query: u32, queries: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> lengths: array<u32>;   // (batch)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (batch, tokens, heads * D)

var<workgroup> k_tile: array<vec4f, KEYS * HEAD_VEC4S>;
var<workgroup> v_tile: array<vec4f, KEYS * HEAD_VEC4S>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let batch = group.z;
  // The launch covers the bucket: workgroups wholly past the actual sizes end here together.
  if (batch >= params.batch || group.x * WORKGROUP >= params.queries) { return; }
  let wide = params.kept * HEAD_SIZE;
  let head = (params.x_head + group.y) * HEAD_SIZE;
  // Lanes past the last query repeat it: they help to load, and store nothing.
  let token = params.first_query + min(group.x * WORKGROUP + lane, params.queries - 1u);
  let query = (batch * params.tokens + token) * 3u * wide + head;
  let keys = batch * params.tokens * 3u * wide + wide + head;
  let count = clamp(lengths[batch], 1u, params.tokens);
  let scale = 1.0 / sqrt(f32(HEAD_SIZE));

  var q: array<vec4f, HEAD_VEC4S>;
  var sum: array<vec4f, HEAD_VEC4S>;
  for (var i = 0u; i < HEAD_VEC4S; i++) { q[i] = head_at(query, i) * scale; }
  var top = -3.4e38;   // largest score so far
  var total = 0.0;     // sum of exp(score - top)
  // All tokens' tiles are walked, so that the barriers stay in uniform control flow.
  for (var j0 = 0u; j0 < params.tokens; j0 += KEYS) {
    for (var i = lane; i < KEYS * HEAD_VEC4S; i += WORKGROUP) {
      let key = keys + min(j0 + i / HEAD_VEC4S, count - 1u) * 3u * wide;
      k_tile[i] = head_at(key, i % HEAD_VEC4S);
      v_tile[i] = head_at(key + wide, i % HEAD_VEC4S);
    }
    workgroupBarrier();   // the tile is filled before anyone reads it
    let here = min(KEYS, max(count, j0) - j0);
    for (var j = 0u; j < here; j++) {
      var score = 0.0;
      for (var i = 0u; i < HEAD_VEC4S; i++) { score += dot(q[i], k_tile[j * HEAD_VEC4S + i]); }
      let higher = max(top, score);
      let keep = exp(top - higher);
      let weight = exp(score - higher);
      total = total * keep + weight;
      for (var i = 0u; i < HEAD_VEC4S; i++) {
        sum[i] = sum[i] * keep + v_tile[j * HEAD_VEC4S + i] * weight;
      }
      top = higher;
    }
    workgroupBarrier();   // everyone is done before the tile is filled again
  }

  if (group.x * WORKGROUP + lane >= params.queries) { return; }
  let row = (batch * params.tokens + token) * params.heads;
  let start = (row + params.y_head + group.y) * HEAD_SIZE;
  for (var d = 0u; d < HEAD_SIZE; d++) { y[start + d] = sum[d / 4u][d % 4u] / total; }
}
