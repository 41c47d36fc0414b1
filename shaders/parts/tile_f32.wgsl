// tile_f32: weights in full, for blocks_tile.
var<workgroup> w_tile: array<vec4f, LANES_X * WIDTH * STRIDE>;

// A run's weights into row `i` of the tile.
fn fill(i: u32, w: Run) {
  let at = i * STRIDE;
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

// Offsets are in the weights: x need not be added up.
fn add_up(index: u32, row0: u32, run: u32) {}

fn multiply(sums: ptr<function, Sums>, lane: vec2u) {
  let next = LANES_X * STRIDE;   // from a column of this lane to its next
  for (var k = 0u; k < STEP; k++) {
    let c = lane.x * STRIDE + k;
    let w = mat4x4f(w_tile[c], w_tile[c + next], w_tile[c + 2u * next], w_tile[c + 3u * next]);
    let v = mat4x4f(w_tile[c + 4u * next], w_tile[c + 5u * next], w_tile[c + 6u * next],
                    w_tile[c + 7u * next]);
    for (var r = 0u; r < ROWS; r++) {
      let x4 = x_tile[(r * LANES_Y + lane.y) * STRIDE + k];
      (*sums).s[r] += x4 * w;
      (*sums).t[r] += x4 * v;
    }
  }
}
