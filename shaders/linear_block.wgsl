// linear_block: y = activation(x @ weight^T + bias) + residual, a register block a lane.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A lane owns 8 rows x 8 columns and walks K four at a time; no workgroup memory, no barrier: the
// choice for adapters that run on a CPU, where both are dear. The 8 rows are written out because
// software compilers keep an indexed array in memory (measured: 1.7 times slower).
// Slots: bias, activation, residual.   Launch: (cols / 64, rows / 64, 1).   Reference: linear.
override LANES_X: u32 = 8u;
override LANES_Y: u32 = 8u;

struct Params { rows: u32, cols: u32, inner4: u32 }   // inner4: K / 4

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;   // (cols, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

const ROWS = 8u;
const COLS = 8u;

fn store(row: u32, col: u32, sums: vec4f) {
  if (row >= params.rows || col >= params.cols) { return; }
  let bias = vec4f(bias_at(col), bias_at(col + 1u), bias_at(col + 2u), bias_at(col + 3u));
  let value = activation(sums + bias);
  let at = row * params.cols + col;
  y[at] = value.x + residual_at(at);
  if (col + 1u < params.cols) { y[at + 1u] = value.y + residual_at(at + 1u); }
  if (col + 2u < params.cols) { y[at + 2u] = value.z + residual_at(at + 2u); }
  if (col + 3u < params.cols) { y[at + 3u] = value.w + residual_at(at + 3u); }
}

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let col = id.x * COLS;
  let row = id.y * ROWS;
  if (row >= params.rows || col >= params.cols) { return; }

  // Rows and columns past the edge repeat the last one: their sums are never stored.
  let last_row = params.rows - 1u;
  let last_col = params.cols - 1u;
  let r0 = row * params.inner4;
  let r1 = min(row + 1u, last_row) * params.inner4;
  let r2 = min(row + 2u, last_row) * params.inner4;
  let r3 = min(row + 3u, last_row) * params.inner4;
  let r4 = min(row + 4u, last_row) * params.inner4;
  let r5 = min(row + 5u, last_row) * params.inner4;
  let r6 = min(row + 6u, last_row) * params.inner4;
  let r7 = min(row + 7u, last_row) * params.inner4;
  let c0 = col * params.inner4;
  let c1 = min(col + 1u, last_col) * params.inner4;
  let c2 = min(col + 2u, last_col) * params.inner4;
  let c3 = min(col + 3u, last_col) * params.inner4;
  let c4 = min(col + 4u, last_col) * params.inner4;
  let c5 = min(col + 5u, last_col) * params.inner4;
  let c6 = min(col + 6u, last_col) * params.inner4;
  let c7 = min(col + 7u, last_col) * params.inner4;

  // s: sums of the first four columns, t: of the last four.
  var s0 = vec4f();
  var t0 = vec4f();
  var s1 = vec4f();
  var t1 = vec4f();
  var s2 = vec4f();
  var t2 = vec4f();
  var s3 = vec4f();
  var t3 = vec4f();
  var s4 = vec4f();
  var t4 = vec4f();
  var s5 = vec4f();
  var t5 = vec4f();
  var s6 = vec4f();
  var t6 = vec4f();
  var s7 = vec4f();
  var t7 = vec4f();
  for (var k = 0u; k < params.inner4; k++) {
    // A row vector times such a matrix is its dot product with each of four weight rows.
    let w = mat4x4f(weight[c0 + k], weight[c1 + k], weight[c2 + k], weight[c3 + k]);
    let v = mat4x4f(weight[c4 + k], weight[c5 + k], weight[c6 + k], weight[c7 + k]);
    let x0 = x[r0 + k];
    s0 += x0 * w;
    t0 += x0 * v;
    let x1 = x[r1 + k];
    s1 += x1 * w;
    t1 += x1 * v;
    let x2 = x[r2 + k];
    s2 += x2 * w;
    t2 += x2 * v;
    let x3 = x[r3 + k];
    s3 += x3 * w;
    t3 += x3 * v;
    let x4 = x[r4 + k];
    s4 += x4 * w;
    t4 += x4 * v;
    let x5 = x[r5 + k];
    s5 += x5 * w;
    t5 += x5 * v;
    let x6 = x[r6 + k];
    s6 += x6 * w;
    t6 += x6 * v;
    let x7 = x[r7 + k];
    s7 += x7 * w;
    t7 += x7 * v;
  }
  store(row, col, s0);
  store(row, col + 4u, t0);
  store(row + 1u, col, s1);
  store(row + 1u, col + 4u, t1);
  store(row + 2u, col, s2);
  store(row + 2u, col + 4u, t2);
  store(row + 3u, col, s3);
  store(row + 3u, col + 4u, t3);
  store(row + 4u, col, s4);
  store(row + 4u, col + 4u, t4);
  store(row + 5u, col, s5);
  store(row + 5u, col + 4u, t5);
  store(row + 6u, col, s6);
  store(row + 6u, col + 4u, t6);
  store(row + 7u, col, s7);
  store(row + 7u, col + 4u, t7);
}
