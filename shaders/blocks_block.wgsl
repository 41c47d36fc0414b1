// blocks_block: y = activation(x @ weight^T + bias) + residual, weights in blocks, many rows.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A lane owns eight rows of x and eight of the weights and walks K by runs of 32, so that a run's
// numbers are unpacked once for eight rows: the choice for adapters that run on a CPU. Written out
// because software compilers keep an indexed array in memory.
// Slots: weights, spread, columns (bias, activation, residual).
// Launch: (cols / (COLS * LANES), rows / 8, 1).   Reference: linear, gated_linear.
override LANES: u32 = 8u;

struct Params { rows: u32, cols: u32, runs: u32 }   // runs: K / 32

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

const ROWS = 8u;

struct Rows { x0: Xs, x1: Xs, x2: Xs, x3: Xs, x4: Xs, x5: Xs, x6: Xs, x7: Xs }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y * ROWS;
  if (row >= params.rows) { return; }
  // Lanes past the edge repeat the last column, so that subgroups stay whole.
  let col = (group.x * LANES + lane) * COLS;
  let spread = spread_lane();
  // Column by column, four rows each.
  var s0 = mat2x4f();
  var s1 = mat2x4f();
  var s2 = mat2x4f();
  var s3 = mat2x4f();
  var s4 = mat2x4f();
  var s5 = mat2x4f();
  var s6 = mat2x4f();
  var s7 = mat2x4f();
  for (var run = 0u; run < params.runs; run++) {
    let rows = Rows(row_at(row, run, spread), row_at(row + 1u, run, spread),
                    row_at(row + 2u, run, spread), row_at(row + 3u, run, spread),
                    row_at(row + 4u, run, spread), row_at(row + 5u, run, spread),
                    row_at(row + 6u, run, spread), row_at(row + 7u, run, spread));
    s0 += products(weight_run(weight_row(col, 0u), run), rows);
    s1 += products(weight_run(weight_row(col, 1u), run), rows);
    s2 += products(weight_run(weight_row(col, 2u), run), rows);
    s3 += products(weight_run(weight_row(col, 3u), run), rows);
    s4 += products(weight_run(weight_row(col, 4u), run), rows);
    s5 += products(weight_run(weight_row(col, 5u), run), rows);
    s6 += products(weight_run(weight_row(col, 6u), run), rows);
    s7 += products(weight_run(weight_row(col, 7u), run), rows);
  }
  store(row, col, vec4f(s0[0][0], s1[0][0], s2[0][0], s3[0][0]),
        vec4f(s4[0][0], s5[0][0], s6[0][0], s7[0][0]));
  store(row + 1u, col, vec4f(s0[0][1], s1[0][1], s2[0][1], s3[0][1]),
        vec4f(s4[0][1], s5[0][1], s6[0][1], s7[0][1]));
  store(row + 2u, col, vec4f(s0[0][2], s1[0][2], s2[0][2], s3[0][2]),
        vec4f(s4[0][2], s5[0][2], s6[0][2], s7[0][2]));
  store(row + 3u, col, vec4f(s0[0][3], s1[0][3], s2[0][3], s3[0][3]),
        vec4f(s4[0][3], s5[0][3], s6[0][3], s7[0][3]));
  store(row + 4u, col, vec4f(s0[1][0], s1[1][0], s2[1][0], s3[1][0]),
        vec4f(s4[1][0], s5[1][0], s6[1][0], s7[1][0]));
  store(row + 5u, col, vec4f(s0[1][1], s1[1][1], s2[1][1], s3[1][1]),
        vec4f(s4[1][1], s5[1][1], s6[1][1], s7[1][1]));
  store(row + 6u, col, vec4f(s0[1][2], s1[1][2], s2[1][2], s3[1][2]),
        vec4f(s4[1][2], s5[1][2], s6[1][2], s7[1][2]));
  store(row + 7u, col, vec4f(s0[1][3], s1[1][3], s2[1][3], s3[1][3]),
        vec4f(s4[1][3], s5[1][3], s6[1][3], s7[1][3]));
}

fn row_at(row: u32, run: u32, spread: u32) -> Xs {
  return xs_at((min(row, params.rows - 1u) * params.runs + run) * 8u, spread);
}

fn products(w: Run, x: Rows) -> mat2x4f {
  return mat2x4f(product(w, x.x0), product(w, x.x1), product(w, x.x2), product(w, x.x3),
                 product(w, x.x4), product(w, x.x5), product(w, x.x6), product(w, x.x7));
}
