// argmax_token: the first of the highest logits becomes the next token; the position moves on.
//   y = argmax(logits); tokens[(position + 1) % S] = y; position += 1
// One workgroup: a lane strides over the logits, a tree finds the best of the lanes. Logits are
// compared as whole numbers, so that no driver's notion of a NaN matters. Where one is NaN, or the
// highest infinite, the token is 0xffffffff, by which the host knows.
// Slots: rank.   Launch: (1, 1, 1).   Reference: argmax_token.
override WORKGROUP: u32 = 256u;

struct Params { n: u32, slots: u32 }   // n logits

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;           // (1, n) bits of f32
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;     // (slots)
@group(0) @binding(3) var<storage, read_write> position: array<u32>;   // (1)
@group(0) @binding(4) var<storage, read_write> y: array<u32>;          // (1)

var<workgroup> ranks: array<u32, WORKGROUP>;
var<workgroup> ids: array<u32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
  var rank = 0u;
  var id = NOT_A_TOKEN;
  for (var i = lane; i < params.n; i += WORKGROUP) {
    let other = rank_of(logits[i]);
    if (other > rank) {
      rank = other;
      id = i;
    }
  }
  ranks[lane] = rank;
  ids[lane] = id;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) {
      let other = ranks[lane + half];
      if (other > rank || (other == rank && ids[lane + half] < id)) {
        rank = other;
        id = ids[lane + half];
        ranks[lane] = rank;
        ids[lane] = id;
      }
    }
  }
  if (lane == 0u) {
    id = select(NOT_A_TOKEN, id, is_finite(rank));
    let next = position[0] + 1u;
    tokens[next % params.slots] = id;
    position[0] = next;
    y[0] = id;
  }
}
