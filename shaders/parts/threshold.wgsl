// threshold: the highest x so that the mass of what lies at or above it reaches a goal.
// Each turn sums the mass above sixteen thresholds, evenly spaced between two known ones, in
// registers. Sums run in a fixed order, so that the result is reproducible.
const TURNS = 8u;   // 16^-8 of the first range is under a float's rounding

struct Bracket { low: f32, high: f32, goal: f32, done: u32 }

var<workgroup> shares: array<vec4f, 4u * WORKGROUP>;   // (lanes, sixteen thresholds)
var<workgroup> masses: array<vec4f, 4>;
var<workgroup> bracket: Bracket;

// Between `low` and 0, where the highest logit lies; `low` itself if no other will do. All lanes
// call it. The goal is a count of logits, or a share of the weight at or above `low`.
fn threshold(lane: u32, top: u32, low: f32, goal: f32, by_count: bool) -> f32 {
  var at = Bracket(low, 0.0, goal, 0u);
  for (var turn = 0u; turn < TURNS && at.done == 0u; turn++) {
    let step = (at.high - at.low) / 16.0;
    let a = at.low + step * vec4f(0.0, 1.0, 2.0, 3.0);
    let b = at.low + step * vec4f(4.0, 5.0, 6.0, 7.0);
    let c = at.low + step * vec4f(8.0, 9.0, 10.0, 11.0);
    let d = at.low + step * vec4f(12.0, 13.0, 14.0, 15.0);
    var above_a = vec4f();   // a lane's mass at or above each
    var above_b = vec4f();
    var above_c = vec4f();
    var above_d = vec4f();
    for (var block = lane; block * params.block < params.n; block += WORKGROUP) {
      if (x_of(peaks[block], top) < at.low) { continue; }
      let end = min((block + 1u) * params.block, params.n);
      for (var i = block * params.block; i < end; i++) {
        let x = x_of(rank_of(logits[i]), top);
        let weight = vec4f(select(exp(x), 1.0, by_count));
        above_a += select(vec4f(), weight, vec4f(x) >= a);
        above_b += select(vec4f(), weight, vec4f(x) >= b);
        above_c += select(vec4f(), weight, vec4f(x) >= c);
        above_d += select(vec4f(), weight, vec4f(x) >= d);
      }
    }
    shares[4u * lane] = above_a;
    shares[4u * lane + 1u] = above_b;
    shares[4u * lane + 2u] = above_c;
    shares[4u * lane + 3u] = above_d;
    workgroupBarrier();   // every lane has left its sums
    if (lane < 4u) {
      var sum = vec4f();
      for (var i = 0u; i < WORKGROUP; i++) { sum += shares[4u * i + lane]; }
      masses[lane] = sum;
    }
    workgroupBarrier();   // the masses stand
    if (lane == 0u) {
      if (turn == 0u && !by_count) { at.goal = goal * masses[0].x; }
      let levels = array<vec4f, 4>(a, b, c, d);
      bracket = narrowed(at, levels, by_count);
    }
    at = workgroupUniformLoad(&bracket);
  }
  return at.low;
}

// Between the highest level whose mass reaches the goal and the one above it.
fn narrowed(at: Bracket, given: array<vec4f, 4>, by_count: bool) -> Bracket {
  var levels = given;
  var best = 0u;
  for (var k = 1u; k < 16u; k++) {
    if (masses[k / 4u][k % 4u] >= at.goal) { best = k; }
  }
  let above = min(best + 1u, 15u);
  let high = select(at.high, levels[above / 4u][above % 4u], best < 15u);
  // A mass within rounding of the goal is as good as it gets.
  let slack = select(1e-6 * at.goal, 0.0, by_count);
  let done = u32(masses[best / 4u][best % 4u] - at.goal <= slack);
  return Bracket(levels[best / 4u][best % 4u], high, at.goal, done);
}
