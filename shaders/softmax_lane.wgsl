// softmax_lane: exponentials of each row, scaled to the sum 1, a row a lane.
//   y[r,c] = exp(x[r,c] - max_c x[r,c]) / sum_c exp(x[r,c] - max_c x[r,c])
// No barrier: the choice for adapters that run on a CPU.
// Slots: none.   Launch: flat over rows.   Reference: softmax.
override WORKGROUP: u32 = 16u;

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let row = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (row >= params.rows) { return; }
  let start = row * params.cols;
  var top = x[start];
  for (var c = 1u; c < params.cols; c++) { top = max(top, x[start + c]); }
  var total = 0.0;
  for (var c = 0u; c < params.cols; c++) { total += exp(x[start + c] - top); }
  let scale = 1.0 / total;
  for (var c = 0u; c < params.cols; c++) { y[start + c] = exp(x[start + c] - top) * scale; }
}
