// gated_any: y = activation(x @ gate^T) * (x @ up^T) for any K, weights in f32.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k]) * sum_k x[r,k] * weight[cols + c,k]
// A lane owns one element. The choice where K is no multiple of 32.
// Slots: activation.   Launch: flat over rows * cols.   Reference: gated_linear.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32, inner: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, inner)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (2 * cols, inner)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.rows * params.cols) { return; }
  let x_row = index / params.cols * params.inner;
  let gate_row = index % params.cols * params.inner;
  let up_row = gate_row + params.cols * params.inner;
  var gate = 0.0;
  var up = 0.0;
  for (var k = 0u; k < params.inner; k++) {
    gate += x[x_row + k] * weight[gate_row + k];
    up += x[x_row + k] * weight[up_row + k];
  }
  y[index] = activation(vec4f(gate)).x * up;
}
