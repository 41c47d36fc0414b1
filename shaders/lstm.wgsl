// lstm: hidden and cell of a long short-term memory after each step.
// One workgroup goes through the steps; a lane owns every WORKGROUP-th unit and its
// cell. The hidden numbers of the step before are in workgroup memory.
// HIDDEN is given before this text.
// Slots: none.   Launch: (1, 1, 1).   Reference: lstm.
override WORKGROUP: u32 = 64u;

struct Params { steps: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> gates: array<f32>;     // (steps, 4 * HIDDEN)
@group(0) @binding(2) var<storage, read> weight: array<f32>;    // (HIDDEN, 4 * HIDDEN)
@group(0) @binding(3) var<storage, read> start: array<f32>;     // (2 * HIDDEN)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // (steps, 2 * HIDDEN)

var<workgroup> hidden: array<f32, HIDDEN>;

// Past these exp overflows, and the result no longer changes.
fn squashed(v: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(v, -80.0, 80.0))); }
fn bent(v: f32) -> f32 { return tanh(clamp(v, -15.0, 15.0)); }

// What hidden number k weighs in the four gates of unit u.
fn column(k: u32, u: u32) -> vec4f {
  let at = k * 4u * HIDDEN + u;
  return vec4f(weight[at], weight[at + HIDDEN], weight[at + 2u * HIDDEN],
               weight[at + 3u * HIDDEN]);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
  for (var u = lane; u < HIDDEN; u += WORKGROUP) { hidden[u] = start[u]; }
  workgroupBarrier();
  for (var step = 0u; step < params.steps; step++) {
    let row = step * 2u * HIDDEN;
    for (var u = lane; u < HIDDEN; u += WORKGROUP) {
      let first = step * 4u * HIDDEN + u;
      var sums = vec4f(gates[first], gates[first + HIDDEN], gates[first + 2u * HIDDEN],
                       gates[first + 3u * HIDDEN]);
      var k = 0u;
      for (; k + 4u <= HIDDEN; k += 4u) {   // few rounds: some drivers end loops after 65,535
        sums += hidden[k] * column(k, u) + hidden[k + 1u] * column(k + 1u, u)
              + hidden[k + 2u] * column(k + 2u, u) + hidden[k + 3u] * column(k + 3u, u);
      }
      for (; k < HIDDEN; k++) { sums += hidden[k] * column(k, u); }
      var cell = start[HIDDEN + u];
      if (step > 0u) { cell = y[row - HIDDEN + u]; }
      cell = squashed(sums.y) * cell + squashed(sums.x) * bent(sums.z);
      y[row + HIDDEN + u] = cell;
      y[row + u] = squashed(sums.w) * bent(cell);
    }
    workgroupBarrier();   // no lane reads the step before any more
    for (var u = lane; u < HIDDEN; u += WORKGROUP) { hidden[u] = y[row + u]; }
    workgroupBarrier();   // the hidden numbers are whole
  }
}
