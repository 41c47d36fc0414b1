// layer_norm: normalise each row of x + residual, then scale and shift.
//   s = x + residual;  y[r,c] = (s[r,c] - mean[r]) * rstd[r] * weight[c] + bias[c]
// A workgroup owns a row; a lane strides over its columns. Mean first, then the variance around it:
// one pass of sums and squares would cancel in f32.
// Slots: residual, reduce.   Launch: a workgroup a row.   Source: Ba et al. 2016.
// Reference: layer_norm.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, cols)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (cols)
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // (cols)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let start = row * params.cols;
  let cols = f32(params.cols);

  var sum = 0.0;
  for (var c = lane; c < params.cols; c += WORKGROUP) {
    sum += x[start + c] + residual_at(start + c);
  }
  let mean = reduce_sum(sum, lane) / cols;

  var squares = 0.0;
  for (var c = lane; c < params.cols; c += WORKGROUP) {
    let centred = x[start + c] + residual_at(start + c) - mean;
    squares += centred * centred;
  }
  let rstd = 1.0 / sqrt(reduce_sum(squares, lane) / cols + params.eps);

  for (var c = lane; c < params.cols; c += WORKGROUP) {
    let centred = x[start + c] + residual_at(start + c) - mean;
    y[start + c] = centred * rstd * weight[c] + bias[c];
  }
}
