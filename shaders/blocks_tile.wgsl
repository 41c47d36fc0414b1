// blocks_tile: y = activation(x @ weight^T + bias) + residual, weights in blocks, many rows.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A workgroup owns LANES_Y*4 rows of x and LANES_X*8 of the weights and walks K by runs of 32: its
// lanes unpack both tiles once and each multiplies 4 rows by 8. The choice for hardware adapters.
// Slots: weights, columns (bias, activation, residual).
// Launch: (cols / (LANES_X * COLS), rows / (LANES_Y*4), 1).   Reference: linear, gated_linear.
override LANES_X: u32 = 8u;
override LANES_Y: u32 = 8u;

struct Params { rows: u32, cols: u32, runs: u32 }   // runs: K / 32

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

const ROWS = 4u;    // of x, a lane
const WIDTH = 8u;   // rows of weights, a lane
const STEP = 8u;    // vec4s of a run

// One vec4 of padding a row keeps lanes that read down a column off the same memory bank.
const STRIDE = STEP + 1u;
var<workgroup> x_tile: array<vec4f, LANES_Y * ROWS * STRIDE>;
var<workgroup> w_tile: array<vec4f, LANES_X * WIDTH * STRIDE>;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u,
        @builtin(local_invocation_index) index: u32) {
  let row0 = group.y * LANES_Y * ROWS;
  // The launch covers the bucket: tiles wholly past the actual rows end here, all lanes together.
  if (row0 >= params.rows) { return; }

  var s: array<vec4f, ROWS>;   // sums of the first four columns
  var t: array<vec4f, ROWS>;   // and of the last four
  for (var run = 0u; run < params.runs; run++) {
    for (var i = index; i < LANES_Y * ROWS * STEP; i += LANES_X * LANES_Y) {
      let row = min(row0 + i / STEP, params.rows - 1u);
      x_tile[i / STEP * STRIDE + i % STEP] = x[(row * params.runs + run) * STEP + i % STEP];
    }
    for (var i = index; i < LANES_X * WIDTH; i += LANES_X * LANES_Y) {
      let col = (group.x * LANES_X + i / WIDTH) * COLS;
      fill(i * STRIDE, weight_run(weight_row(col, i % WIDTH), run));
    }
    workgroupBarrier();   // both tiles are filled before anyone multiplies
    for (var k = 0u; k < STEP; k++) {
      let c = lane.x * WIDTH * STRIDE + k;
      let w = mat4x4f(w_tile[c], w_tile[c + STRIDE], w_tile[c + 2u * STRIDE],
                      w_tile[c + 3u * STRIDE]);
      let v = mat4x4f(w_tile[c + 4u * STRIDE], w_tile[c + 5u * STRIDE], w_tile[c + 6u * STRIDE],
                      w_tile[c + 7u * STRIDE]);
      for (var r = 0u; r < ROWS; r++) {
        let x4 = x_tile[(lane.y * ROWS + r) * STRIDE + k];
        s[r] += x4 * w;
        t[r] += x4 * v;
      }
    }
    workgroupBarrier();   // everyone is done before the tiles are filled again
  }
  let col = (group.x * LANES_X + lane.x) * COLS;
  for (var r = 0u; r < ROWS; r++) { store(row0 + lane.y * ROWS + r, col, s[r], t[r]); }
}

// A run's weights in full, into the tile.
fn fill(at: u32, w: Run) {
  let first = FIRST_UNITS * w.scales.x;
  let last = LAST_UNITS * w.scales.z;
  w_tile[at] = w.q0 * first + w.scales.y;
  w_tile[at + 1u] = w.q1 * first + w.scales.y;
  w_tile[at + 2u] = w.q2 * first + w.scales.y;
  w_tile[at + 3u] = w.q3 * first + w.scales.y;
  w_tile[at + 4u] = w.q4 * last + w.scales.w;
  w_tile[at + 5u] = w.q5 * last + w.scales.w;
  w_tile[at + 6u] = w.q6 * last + w.scales.w;
  w_tile[at + 7u] = w.q7 * last + w.scales.w;
}
