// layer_norm_lane: normalise each row of x + residual, then scale and shift, a row a lane.
//   s = x + residual;  y[r,c] = (s[r,c] - mean[r]) * rstd[r] * weight[c] + bias[c]
// No barrier: the choice for adapters that run on a CPU.
// Slots: residual.   Launch: flat over rows.   Source: Ba et al. 2016.   Reference: layer_norm.
override WORKGROUP: u32 = 16u;

struct Params { rows: u32, cols: u32, eps: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, cols)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (cols)
@group(0) @binding(3) var<storage, read> bias: array<f32>;      // (cols)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (row >= params.rows) { return; }
  let start = row * params.cols;
  let cols = f32(params.cols);

  // The sum waits in y, so that x and the residual are read once.
  var sum = 0.0;
  for (var c = 0u; c < params.cols; c++) {
    let s = x[start + c] + residual_at(start + c);
    y[start + c] = s;
    sum += s;
  }
  let mean = sum / cols;

  var squares = 0.0;
  for (var c = 0u; c < params.cols; c++) {
    let centred = y[start + c] - mean;
    squares += centred * centred;
  }
  let rstd = 1.0 / sqrt(squares / cols + params.eps);

  for (var c = 0u; c < params.cols; c++) {
    y[start + c] = (y[start + c] - mean) * rstd * weight[c] + bias[c];
  }
}
