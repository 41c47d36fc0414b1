// relative_bias: what attention adds to a score by how far the key is from the query.
//   y[h,q,k] = table[bucket(k - q), h]
// Half of the buckets are for keys behind the query; of each half, half hold one distance each and
// the others are wider and wider. A lane owns one element.
// Slots: none.   Launch: flat over heads * tokens * tokens.
// Source: Raffel et al. 2020.   Reference: relative_bias.
override WORKGROUP: u32 = 64u;

// half: buckets of a direction. exact: those of one distance. steps: buckets in a factor of e.
struct Params { heads: u32, tokens: u32, half: u32, exact: u32, steps: f32, nudge: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> table: array<f32>;     // (2 * half, heads)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (heads, tokens, tokens)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.heads * params.tokens * params.tokens) { return; }
  let key = index % params.tokens;
  let query = index / params.tokens % params.tokens;
  let head = index / params.tokens / params.tokens;
  let distance = max(key, query) - min(key, query);
  var bucket = distance;
  if (distance >= params.exact) {
    let wide = log(f32(distance) / f32(params.exact)) * params.steps + params.nudge;
    bucket = min(params.exact + u32(wide), params.half - 1u);
  }
  if (key > query) { bucket += params.half; }
  y[index] = table[bucket * params.heads + head];
}
