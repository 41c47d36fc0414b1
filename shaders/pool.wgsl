// pool: one vector a text from its tokens.
//   mean: y[b,c] = sum of x[b,t,c] over t < lengths[b], divided by lengths[b]
//   cls:  y[b,c] = x[b,0,c]
// A lane owns one element of y. A length of 0 counts as 1, one past the tokens as all of them.
// Slots: none.   Launch: flat over batch * cols.   Reference: pool.
override WORKGROUP: u32 = 64u;
override ONLY_FIRST: bool = false;   // cls instead of mean

struct Params { batch: u32, tokens: u32, cols: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (batch, tokens, cols)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;   // (batch)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (batch, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.batch * params.cols) { return; }
  let batch = index / params.cols;
  let col = index % params.cols;
  let count = select(clamp(lengths[batch], 1u, params.tokens), 1u, ONLY_FIRST);
  var sum = 0.0;
  for (var t = 0u; t < count; t++) {
    sum += x[(batch * params.tokens + t) * params.cols + col];
  }
  y[index] = sum / f32(count);
}
