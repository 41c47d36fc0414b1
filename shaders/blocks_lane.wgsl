// blocks_lane: y = activation(x @ weight^T + bias) + residual, weights in blocks, few rows.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A lane owns one row of x and eight of the weights and walks K by runs of 32: the choice for
// adapters that run on a CPU, where reading memory costs most. Lanes past the edge repeat the last
// column, so that subgroups stay whole.
// Slots: weights, spread, columns (bias, activation, residual).
// Launch: (cols / (COLS * LANES), rows, 1).   Reference: linear, gated_linear.
override LANES: u32 = 8u;

struct Params { rows: u32, cols: u32, runs: u32 }   // runs: K / 32

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y;
  if (row >= params.rows) { return; }
  let col = (group.x * LANES + lane) * COLS;
  let c0 = weight_row(col, 0u);
  let c1 = weight_row(col, 1u);
  let c2 = weight_row(col, 2u);
  let c3 = weight_row(col, 3u);
  let c4 = weight_row(col, 4u);
  let c5 = weight_row(col, 5u);
  let c6 = weight_row(col, 6u);
  let c7 = weight_row(col, 7u);
  let spread = spread_lane();
  var s = vec4f();
  var t = vec4f();
  for (var run = 0u; run < params.runs; run++) {
    let xs = xs_at((row * params.runs + run) * 8u, spread);
    s += vec4f(product(weight_run(c0, run), xs), product(weight_run(c1, run), xs),
               product(weight_run(c2, run), xs), product(weight_run(c3, run), xs));
    t += vec4f(product(weight_run(c4, run), xs), product(weight_run(c5, run), xs),
               product(weight_run(c6, run), xs), product(weight_run(c7, run), xs));
  }
  store(row, col, s, t);
}
