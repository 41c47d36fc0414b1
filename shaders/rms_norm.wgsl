// rms_norm: divide each row by its root mean square, then scale.
//   y[r,c] = x[r,c] / sqrt(mean_c(x[r,c]^2) + eps) * (weight[c] + plus)
// A workgroup owns a row; a lane strides over its columns.
// Slots: reduce.   Launch: a workgroup a row.   Source: Zhang & Sennrich 2019.
// Reference: rms_norm.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32, eps: f32, plus: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, cols)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (cols)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let start = row * params.cols;
  var squares = 0.0;
  for (var c = lane; c < params.cols; c += WORKGROUP) {
    squares += x[start + c] * x[start + c];
  }
  let scale = 1.0 / sqrt(reduce_sum(squares, lane) / f32(params.cols) + params.eps);
  for (var c = lane; c < params.cols; c += WORKGROUP) {
    y[start + c] = x[start + c] * scale * (weight[c] + params.plus);
  }
}
