// blocks_group: y = activation(x @ weight^T + bias) + residual, weights in blocks, few rows.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A workgroup owns one row of x and eight of the weights. A team of WORKGROUP / 8 lanes shares a
// row of weights: neighbours read neighbouring runs. The choice for hardware adapters.
// Slots: weights, spread, columns (bias, activation, residual).
// Launch: (cols / COLS, rows, 1).   Reference: linear, gated_linear.
override WORKGROUP: u32 = 64u;   // a multiple of 8

struct Params { rows: u32, cols: u32, runs: u32 }   // runs: K / 32

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

var<workgroup> partial: array<f32, WORKGROUP>;
var<workgroup> total: array<f32, 8>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y;
  if (row >= params.rows) { return; }
  let col = group.x * COLS;
  let team = WORKGROUP / 8u;
  let weights = weight_row(col, lane / team);

  var sum = 0.0;
  for (var run = lane % team; run < params.runs; run += team) {
    sum += product(weight_run(weights, run), xs_at((row * params.runs + run) * 8u, 0u));
  }
  partial[lane] = sum;
  workgroupBarrier();   // all lanes have left their sums
  if (lane < 8u) {
    var all = 0.0;
    for (var i = 0u; i < team; i++) { all += partial[lane * team + i]; }
    total[lane] = all;
  }
  workgroupBarrier();   // the eight totals stand
  if (lane == 0u) {
    store(row, col, vec4f(total[0], total[1], total[2], total[3]),
          vec4f(total[4], total[5], total[6], total[7]));
  }
}
