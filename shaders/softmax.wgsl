// softmax: exponentials of each row, scaled to the sum 1.
//   y[r,c] = exp(x[r,c] - max_c x[r,c]) / sum_c exp(x[r,c] - max_c x[r,c])
// A workgroup owns a row; a lane strides over its columns. WORKGROUP is a power of two.
// Slots: reduce.   Launch: a workgroup a row.   Reference: softmax.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (rows, cols)

var<workgroup> highest: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let row = group.y * groups.x + group.x;
  if (row >= params.rows) { return; }
  let start = row * params.cols;
  var peak = x[start];
  for (var c = lane; c < params.cols; c += WORKGROUP) { peak = max(peak, x[start + c]); }
  highest[lane] = peak;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) { highest[lane] = max(highest[lane], highest[lane + half]); }
  }
  workgroupBarrier();     // the maximum stands
  let top = highest[0];
  var total = 0.0;
  for (var c = lane; c < params.cols; c += WORKGROUP) { total += exp(x[start + c] - top); }
  let scale = 1.0 / reduce_sum(total, lane);
  for (var c = lane; c < params.cols; c += WORKGROUP) {
    y[start + c] = exp(x[start + c] - top) * scale;
  }
}
