// linear_tile: y = activation(x @ weight^T + bias) + residual, tiles in workgroup memory.
//   y[r,c] = activation(sum_k x[r,k] * weight[c,k] + bias[c]) + residual[r,c]
// A workgroup owns LANES_Y*4 rows x LANES_X*4 columns and walks K in steps of 16: its lanes load
// both tiles once and each lane multiplies 4 rows by 4 columns. The choice for hardware adapters.
// Slots: bias, activation, residual.   Launch: (cols / (LANES_X*4), rows / (LANES_Y*4), 1).
// Source: tiling after Volkov & Demmel 2008.   Reference: linear.
override LANES_X: u32 = 16u;
override LANES_Y: u32 = 16u;

struct Params { rows: u32, cols: u32, inner4: u32 }   // inner4: K / 4

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;        // (rows, K / 4)
@group(0) @binding(2) var<storage, read> weight: array<vec4f>;   // (cols, K / 4)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

const SIDE = 4u;   // rows and columns of a lane
const STEP = 4u;   // vec4s of K a step

// One vec4 of padding a row keeps lanes that read down a column off the same memory bank.
const STRIDE = STEP + 1u;
var<workgroup> x_tile: array<vec4f, LANES_Y * SIDE * STRIDE>;
var<workgroup> w_tile: array<vec4f, LANES_X * SIDE * STRIDE>;

@compute @workgroup_size(LANES_X, LANES_Y)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_id) lane: vec3u,
        @builtin(local_invocation_index) index: u32) {
  let tile_rows = LANES_Y * SIDE;
  let tile_cols = LANES_X * SIDE;
  let row0 = group.y * tile_rows;
  let col0 = group.x * tile_cols;
  // The launch covers the bucket: tiles wholly past the actual rows end here, all lanes together.
  if (row0 >= params.rows) { return; }

  var sums: array<vec4f, SIDE>;
  for (var k0 = 0u; k0 < params.inner4; k0 += STEP) {
    for (var i = index; i < tile_rows * STEP; i += LANES_X * LANES_Y) {
      x_tile[i / STEP * STRIDE + i % STEP] = x_at(row0 + i / STEP, k0 + i % STEP);
    }
    for (var i = index; i < tile_cols * STEP; i += LANES_X * LANES_Y) {
      w_tile[i / STEP * STRIDE + i % STEP] = weight_at(col0 + i / STEP, k0 + i % STEP);
    }
    workgroupBarrier();   // both tiles are filled before anyone multiplies
    for (var k = 0u; k < STEP; k++) {
      let c = lane.x * SIDE * STRIDE + k;
      let w = mat4x4f(w_tile[c], w_tile[c + STRIDE], w_tile[c + 2u * STRIDE],
                      w_tile[c + 3u * STRIDE]);
      for (var r = 0u; r < SIDE; r++) {
        sums[r] += x_tile[(lane.y * SIDE + r) * STRIDE + k] * w;
      }
    }
    workgroupBarrier();   // everyone is done before the tiles are filled again
  }
  for (var r = 0u; r < SIDE; r++) {
    store(row0 + lane.y * SIDE + r, col0 + lane.x * SIDE, sums[r]);
  }
}

fn x_at(row: u32, k: u32) -> vec4f {
  if (row >= params.rows || k >= params.inner4) { return vec4f(); }
  return x[row * params.inner4 + k];
}

fn weight_at(col: u32, k: u32) -> vec4f {
  if (col >= params.cols || k >= params.inner4) { return vec4f(); }
  return weight[col * params.inner4 + k];
}

fn store(row: u32, col: u32, sums: vec4f) {
  if (row >= params.rows) { return; }
  let bias = vec4f(bias_at(col), bias_at(col + 1u), bias_at(col + 2u), bias_at(col + 3u));
  let value = activation(sums + bias);
  for (var c = 0u; c < SIDE && col + c < params.cols; c++) {
    let at = row * params.cols + col + c;
    y[at] = value[c] + residual_at(at);
  }
}
