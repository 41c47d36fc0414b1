// tile_f16: the integers of blocks in f16, which holds them exactly, for blocks_tile: half
// the memory to read. x, scales and all sums are f32, so no value of x is too large or too small; a
// half run's scale and offset come in when its 16 products are added up.
var<workgroup> w_tile: array<vec4<f16>, LANES_X * WIDTH * STRIDE>;
var<workgroup> w_scales: array<vec2f, 2u * LANES_X * WIDTH>;   // (halves of the run, tile rows)
var<workgroup> x_sums: array<f32, 2u * LANES_Y * ROWS>;        // likewise

// A run's numbers into row `i` of the tile.
fn fill(i: u32, w: Run) {
  let at = i * STRIDE;
  w_tile[at] = vec4<f16>(w.q0 * FIRST_UNITS);
  w_tile[at + 1u] = vec4<f16>(w.q1 * FIRST_UNITS);
  w_tile[at + 2u] = vec4<f16>(w.q2 * FIRST_UNITS);
  w_tile[at + 3u] = vec4<f16>(w.q3 * FIRST_UNITS);
  w_tile[at + 4u] = vec4<f16>(w.q4 * LAST_UNITS);
  w_tile[at + 5u] = vec4<f16>(w.q5 * LAST_UNITS);
  w_tile[at + 6u] = vec4<f16>(w.q6 * LAST_UNITS);
  w_tile[at + 7u] = vec4<f16>(w.q7 * LAST_UNITS);
  w_scales[i] = w.scales.xy;
  w_scales[LANES_X * WIDTH + i] = w.scales.zw;
}

// What the offsets are multiplied by.
fn add_up(index: u32, row0: u32, run: u32) {
  for (var i = index; i < 2u * LANES_Y * ROWS; i += LANES_X * LANES_Y) {
    let row = min(row0 + i % (LANES_Y * ROWS), params.rows - 1u);
    let at = (row * params.runs + run) * STEP + i / (LANES_Y * ROWS) * 4u;
    x_sums[i] = dot(x[at] + x[at + 1u] + x[at + 2u] + x[at + 3u], vec4f(1.0));
  }
}

fn multiply(sums: ptr<function, Sums>, lane: vec2u) {
  multiply_half(sums, lane, 0u);
  multiply_half(sums, lane, 1u);
}

fn multiply_half(sums: ptr<function, Sums>, lane: vec2u, half: u32) {
  var unscaled = Sums();
  for (var k = 4u * half; k < 4u * half + 4u; k++) {
    let c = lane.x * STRIDE + k;
    let w = mat4x4f(codes(c, 0u), codes(c, 1u), codes(c, 2u), codes(c, 3u));
    let v = mat4x4f(codes(c, 4u), codes(c, 5u), codes(c, 6u), codes(c, 7u));
    for (var r = 0u; r < ROWS; r++) {
      let x4 = x_tile[(r * LANES_Y + lane.y) * STRIDE + k];
      unscaled.s[r] += x4 * w;
      unscaled.t[r] += x4 * v;
    }
  }
  let at = half * LANES_X * WIDTH + lane.x;
  let first = scales(at);
  let last = scales(at + 4u * LANES_X);
  for (var r = 0u; r < ROWS; r++) {
    let sum = x_sums[(half * ROWS + r) * LANES_Y + lane.y];
    (*sums).s[r] += unscaled.s[r] * first[0] + sum * first[1];
    (*sums).t[r] += unscaled.t[r] * last[0] + sum * last[1];
  }
}

// Of this lane's column `i`.
fn codes(at: u32, i: u32) -> vec4f {
  return vec4f(w_tile[at + i * LANES_X * STRIDE]);
}

// Scales and offsets of four columns of this lane.
fn scales(at: u32) -> mat2x4f {
  return transpose(mat4x2f(w_scales[at], w_scales[at + LANES_X], w_scales[at + 2u * LANES_X],
                           w_scales[at + 3u * LANES_X]));
}
