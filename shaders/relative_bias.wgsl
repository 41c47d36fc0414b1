// relative_bias: what attention adds to a score by how far the key is from the query.
//   y[h,q,k] = table[bucket(k - q), h]
// Half of the buckets are for keys behind the query, all where causal; of each side, half hold one
// distance each and the others are wider and wider. A lane owns one element.
// Slots: first_query.   Launch: flat over heads * queries * keys.
// Source: Raffel et al. 2020.   Reference: relative_bias.
override WORKGROUP: u32 = 64u;

// side: buckets of a direction. exact: those of one distance. steps: buckets in a factor of e.
// causal: 0 or 1.
struct Params {
  heads: u32, queries: u32, keys: u32, side: u32, exact: u32, causal: u32, steps: f32, nudge: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;     // (side, heads), or two of them
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (heads, queries, keys)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.heads * params.queries * params.keys) { return; }
  let key = index % params.keys;
  let query = first_query() + index / params.keys % params.queries;
  let head = index / params.keys / params.queries;
  let ahead = key > query;
  var distance = max(key, query) - min(key, query);
  if (ahead && params.causal != 0u) { distance = 0u; }
  var bucket = distance;
  if (distance >= params.exact) {
    let wide = log(f32(distance) / f32(params.exact)) * params.steps + params.nudge;
    bucket = min(params.exact + u32(wide), params.side - 1u);
  }
  if (ahead && params.causal == 0u) { bucket += params.side; }
  y[index] = table[bucket * params.heads + head];
}
