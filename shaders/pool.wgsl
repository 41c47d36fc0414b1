// pool: one vector a text, from its tokens t of skipped[b] to lengths[b].
//   mean: sum of x[b,t,c] / count       mean_sqrt: the same sum / sqrt(count)     max: the largest
//   weighted_mean: sum of (t + 1) * x[b,t,c] / sum of (t + 1)     cls: the first     last: the last
// A lane owns one element of y. A length of 0 counts as 1, one past the tokens as all of them, and
// one token at least is not skipped.
// Slots: skipped.   Launch: flat over batch * cols.   Reference: pool.
override WORKGROUP: u32 = 64u;
override KIND: u32 = 0u;   // as in the op table: mean, cls, max, mean_sqrt, weighted_mean, last

const CLS = 1u;
const MAX = 2u;
const MEAN_SQRT = 3u;
const WEIGHTED_MEAN = 4u;
const LAST = 5u;

struct Params { batch: u32, tokens: u32, cols: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (batch, tokens, cols)
@group(0) @binding(2) var<storage, read> lengths: array<u32>;   // (batch)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // (batch, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.batch * params.cols) { return; }
  let batch = index / params.cols;
  let col = index % params.cols;
  let length = clamp(lengths[batch], 1u, params.tokens);
  let skipped = min(skipped_at(batch), length - 1u);
  let first = select(skipped, length - 1u, KIND == LAST);
  let end = select(length, skipped + 1u, KIND == CLS);
  let start = batch * params.tokens;
  var peak = x[(start + first) * params.cols + col];
  var sum = 0.0;
  var weights = 0.0;
  for (var t = first; t < end; t++) {
    let value = x[(start + t) * params.cols + col];
    let weight = select(1.0, f32(t + 1u), KIND == WEIGHTED_MEAN);
    sum += weight * value;
    weights += weight;
    peak = max(peak, value);
  }
  let divisor = select(weights, sqrt(weights), KIND == MEAN_SQRT);
  y[index] = select(sum / divisor, peak, KIND == MAX);
}
