// linear_any: y = activation(x @ weight^T + bias) + residual for any K.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A lane owns one element. The choice where K is no multiple of 4: rows are not whole vec4s there.
// Slots: bias, activation, residual.   Launch: flat over rows * cols.   Reference: linear.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32, inner: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, inner)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (cols, inner)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.rows * params.cols) { return; }
  let row = index / params.cols;
  let col = index % params.cols;
  var sum = 0.0;
  for (var k = 0u; k < params.inner; k++) {
    sum += x[row * params.inner + k] * weight[col * params.inner + k];
  }
  y[index] = activation(vec4f(sum + bias_at(col))).x + residual_at(index);
}
