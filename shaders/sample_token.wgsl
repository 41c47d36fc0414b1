// sample_token: draw the next token; the position moves on.
//   y = the first id whose cumulative kept weight exceeds u * total
//   tokens[(position + 1) % S] = y; position += 1
// One workgroup. x = (logit - highest) / temperature is the logarithm of a weight; top-k, top-p and
// min-p keep what lies at or above a threshold in x. The ids are walked block by block; whose
// highest logit lies too low is skipped. Sums run in a fixed order: the same seed gives the same
// token. Where a logit is NaN, or the highest infinite, it is 0xffffffff (see argmax_token).
// Slots: peaks, random, rank, threshold.   Launch: (1, 1, 1).   Reference: sample_token.
// Source: Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p).
override WORKGROUP: u32 = 128u;

const MIN_X = -200.0;   // of x: the weight is 0

struct Params { n: u32, block: u32, slots: u32 }   // n logits, `block` of them a block
struct Settings { temperature: f32, top_k: u32, top_p: f32, min_p: f32, p: f32, w: u32, seed: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;           // (1, n) bits of f32
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;     // (slots)
@group(0) @binding(3) var<storage, read_write> position: array<u32>;   // (1)
@group(0) @binding(4) var<storage, read> settings: Settings;
@group(0) @binding(5) var<storage, read_write> y: array<u32>;          // (1)

var<workgroup> weights: array<f32, BLOCKS>;   // kept ones, a sum a block

// The highest is finite. A temperature may be so low that only this keeps its x from 0 / 0.
fn x_of(rank: u32, top: u32) -> f32 {
  if (rank == top) { return 0.0; }
  if (rank < RANK_OF_LOWEST) { return MIN_X; }
  return max((value_of(rank) - value_of(top)) / settings.temperature, MIN_X);
}

// The smallest x that is kept.
fn find_cutoff(lane: u32, found: Peaks) -> f32 {
  var cutoff = MIN_X;
  let lowest = x_of(min(found.low, found.top), found.top);
  if (settings.top_k > 0u && settings.top_k < params.n) {
    cutoff = threshold(lane, found.top, lowest, f32(settings.top_k), true);
  }
  if (settings.top_p < 1.0) {
    let share = max(settings.top_p, 0.0);
    // Further down not even all logits together weigh enough to matter.
    let far = log((1.0 - share) / f32(params.n)) - 16.0;
    cutoff = threshold(lane, found.top, max(max(cutoff, lowest), far), share, false);
  }
  if (settings.min_p > 0.0) { cutoff = max(cutoff, log(min(settings.min_p, 1.0))); }
  return cutoff;
}

fn weight_at(i: u32, top: u32, cutoff: f32) -> f32 {
  let x = x_of(rank_of(logits[i]), top);
  return select(0.0, exp(x), x >= cutoff);
}

// First the block in which the cumulative weight exceeds its goal, then the id. Where rounding lets
// none exceed it, the last one that weighs anything.
fn draw(top: u32, cutoff: f32) -> u32 {
  var total = 0.0;
  for (var b = 0u; b * params.block < params.n; b++) { total += weights[b]; }
  let goal = uniform_at(settings.seed, position[0]) * total;
  var block = 0u;
  var before = 0.0;   // weight of the blocks before it
  var sum = 0.0;
  for (var b = 0u; b * params.block < params.n && sum <= goal; b++) {
    if (weights[b] > 0.0) {
      block = b;
      before = sum;
    }
    sum += weights[b];
  }
  var id = 0u;
  sum = before;
  let end = min((block + 1u) * params.block, params.n);
  for (var i = block * params.block; i < end && sum <= goal; i++) {
    let weight = weight_at(i, top, cutoff);
    if (weight > 0.0) { id = i; }
    sum += weight;
  }
  return id;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
  let found = find_peaks(lane);
  let known = is_finite(found.top);
  var id = select(NOT_A_TOKEN, found.id, known);
  if (settings.temperature > 0.0 && known) {
    let cutoff = find_cutoff(lane, found);
    for (var b = lane; b * params.block < params.n; b += WORKGROUP) {
      var weight = 0.0;
      let end = select(0u, min((b + 1u) * params.block, params.n),
        x_of(peaks[b], found.top) >= cutoff);
      for (var i = b * params.block; i < end; i++) { weight += weight_at(i, found.top, cutoff); }
      weights[b] = weight;
    }
    workgroupBarrier();   // every block is weighed
    if (lane == 0u) { id = draw(found.top, cutoff); }
  }
  if (lane == 0u) {
    let next = position[0] + 1u;
    tokens[next % params.slots] = id;
    position[0] = next;
    y[0] = id;
  }
}
