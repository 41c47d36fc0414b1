// top_scores: of each row of scores the k best and their ids, best first; the lower id of equals.
// A lane owns every lanes-th element of its row and has k places of `best`, from `at` on: a binary
// heap whose root is the worst, sorted at the end. `first` reads scores, whose ids are first_id,
// first_id + 1, ...; `again` reads what an earlier call has found. Unfilled places hold NONE.
// Slots: none.   Launch: count = rows * lanes.   Reference: search/top.py.
struct Params { rows: u32, n: u32, stride: u32, lanes: u32, k: u32, first_id: u32, at: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> scores: array<f32>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> best: array<f32>;
@group(0) @binding(4) var<storage, read_write> best_ids: array<u32>;

const NONE: u32 = 0xffffffffu;
const LOWEST: f32 = -3.4e38;

fn is_worse(score: f32, id: u32, than: f32, than_id: u32) -> bool {
  return score < than || (score == than && id > than_id);
}

// Puts an element in the place of the root of a heap of n, and restores the heap.
fn replace_root(base: u32, n: u32, score: f32, id: u32) {
  var at = 0u;
  loop {
    var child = 2u * at + 1u;
    if (child >= n) { break; }
    if (child + 1u < n && is_worse(best[base + child + 1u], best_ids[base + child + 1u],
                                     best[base + child], best_ids[base + child])) {
      child += 1u;
    }
    let below = best[base + child];
    let below_id = best_ids[base + child];
    if (!is_worse(below, below_id, score, id)) { break; }
    best[base + at] = below;
    best_ids[base + at] = below_id;
    at = child;
  }
  best[base + at] = score;
  best_ids[base + at] = id;
}

// The worst goes behind the others, again and again.
fn sort_heap(base: u32) {
  for (var last = params.k - 1u; last > 0u; last -= 1u) {
    let score = best[base + last];
    let id = best_ids[base + last];
    best[base + last] = best[base];
    best_ids[base + last] = best_ids[base];
    replace_root(base, last, score, id);
  }
}

// Empties the lane's heap; its first place.
fn emptied(lane: u32) -> u32 {
  let base = params.at + lane * params.k;
  for (var i = 0u; i < params.k; i += 1u) {
    best[base + i] = LOWEST;
    best_ids[base + i] = NONE;
  }
  return base;
}

fn lane_of(group: vec3u, groups: vec3u, local: u32) -> u32 {
  return (group.y * groups.x + group.x) * 64u + local;
}

@compute @workgroup_size(64)
fn first(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) local: u32) {
  let lane = lane_of(group, groups, local);
  if (lane >= params.rows * params.lanes) { return; }
  let base = emptied(lane);
  let row = (lane / params.lanes) * params.stride;
  var worst = LOWEST;
  for (var i = lane % params.lanes; i < params.n; i += params.lanes) {
    let score = scores[row + i];
    // Ids rise: one that equals the worst comes after it.
    if (score > worst) {
      replace_root(base, params.k, score, params.first_id + i);
      worst = best[base];
    }
  }
  sort_heap(base);
}

@compute @workgroup_size(64)
fn again(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
         @builtin(local_invocation_index) local: u32) {
  let lane = lane_of(group, groups, local);
  if (lane >= params.rows * params.lanes) { return; }
  let base = emptied(lane);
  let row = (lane / params.lanes) * params.stride;
  for (var i = lane % params.lanes; i < params.n; i += params.lanes) {
    let score = scores[row + i];
    let id = ids[row + i];
    if (is_worse(best[base], best_ids[base], score, id)) {
      replace_root(base, params.k, score, id);
    }
  }
  sort_heap(base);
}
