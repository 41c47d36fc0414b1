// peaks: the highest logit of each block of ids, of all, and the first id that has it.
const BLOCKS = 512u;   // at most

struct Peaks { top: u32, low: u32, id: u32 }   // ranks; the low one of finite logits; the id of top

var<workgroup> peaks: array<u32, BLOCKS>;   // a rank a block
var<workgroup> of_lanes: array<Peaks, WORKGROUP>;
var<workgroup> of_all: Peaks;

fn merged(a: Peaks, b: Peaks) -> Peaks {
  let second = b.top > a.top || (b.top == a.top && b.id < a.id);
  return Peaks(max(a.top, b.top), min(a.low, b.low), select(a.id, b.id, second));
}

// All lanes call it.
fn find_peaks(lane: u32) -> Peaks {
  var mine = Peaks(0u, 0xffffffffu, 0xffffffffu);
  for (var b = lane; b * params.block < params.n; b += WORKGROUP) {
    var peak = 0u;
    let end = min((b + 1u) * params.block, params.n);
    for (var i = b * params.block; i < end; i++) {
      let rank = rank_of(logits[i]);
      peak = max(peak, rank);
      mine = merged(mine, Peaks(rank, select(rank, 0xffffffffu, rank < RANK_OF_LOWEST), i));
    }
    peaks[b] = peak;
  }
  of_lanes[lane] = mine;
  workgroupBarrier();   // every lane has left its own
  if (lane == 0u) {
    for (var i = 1u; i < WORKGROUP; i++) { mine = merged(mine, of_lanes[i]); }
    of_all = mine;
  }
  return workgroupUniformLoad(&of_all);
}
