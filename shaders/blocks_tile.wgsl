// blocks_tile: y = activation(x @ weight^T + bias) + residual, weights in blocks, many rows.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A workgroup owns LANES_Y*4 rows of x and LANES_X*8 of the weights and walks K by runs of 32: its
// lanes unpack both tiles once and each multiplies 4 rows by 8. The choice for hardware adapters.
// Slots: weights, tile, columns (bias, activation, residual).
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

// Lanes side by side read tile rows side by side: one vec4 of padding a row keeps them off the same
// memory bank. So lane l owns rows l, l + LANES_Y, ... of x_tile, and likewise in the other tile.
const STRIDE = STEP + 1u;
var<workgroup> x_tile: array<vec4f, LANES_Y * ROWS * STRIDE>;

// Of a lane's rows, with the first four columns and with the last.
struct Sums { s: array<vec4f, ROWS>, t: array<vec4f, ROWS> }

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u,
        @builtin(local_invocation_index) index: u32) {
  let row0 = group.y * LANES_Y * ROWS;
  // The launch covers the bucket: tiles wholly past the actual rows end here, all lanes together.
  if (row0 >= params.rows) { return; }

  var sums = Sums();
  for (var run = 0u; run < params.runs; run++) {
    for (var i = index; i < LANES_Y * ROWS * STEP; i += LANES_X * LANES_Y) {
      let row = min(row0 + i / STEP, params.rows - 1u);
      x_tile[i / STEP * STRIDE + i % STEP] = x[(row * params.runs + run) * STEP + i % STEP];
    }
    for (var i = index; i < LANES_X * WIDTH; i += LANES_X * LANES_Y) {
      let col = (group.x * LANES_X + i % LANES_X) * COLS;
      fill(i, weight_run(weight_row(col, i / LANES_X), run));
    }
    add_up(index, row0, run);
    workgroupBarrier();   // both tiles are filled before anyone multiplies
    multiply(&sums, lane.xy);
    workgroupBarrier();   // everyone is done before the tiles are filled again
  }
  let col = (group.x * LANES_X + lane.x) * COLS;
  for (var r = 0u; r < ROWS; r++) {
    store(row0 + r * LANES_Y + lane.y, col, sums.s[r], sums.t[r]);
  }
}
