// allowed_token: the first of the highest allowed logits becomes the next token; the position moves
// on.
//   y = (id, softmax(allowed logits)[id]); tokens[(position + 1) % S] = id; position += 1
// Ids from `times` on stand for times. Where all allowed ones together are likelier than any
// allowed text, only they are allowed. One workgroup: a lane strides over the logits, trees find
// the best of text and of times, then their weights against the highest. Logits are compared as
// whole numbers, so that no driver's notion of a NaN matters. The id is -1 (and no token) where a
// logit is not finite or none is allowed.
// Slots: rank.   Launch: (1, 1, 1).   Source: OpenAI's decoding.py.   Reference: allowed_token.
override WORKGROUP: u32 = 256u;

struct Params { n: u32, slots: u32, times: u32 }   // n logits
struct Rules { text_first: u32, times_first: u32, times_end: u32, is_first: u32 }
struct Best { rank: u32, id: u32 }                 // rank 0: none

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<u32>;           // (1, n) bits of f32
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;     // (slots)
@group(0) @binding(3) var<storage, read_write> position: array<u32>;   // (1)
@group(0) @binding(4) var<storage, read> kinds: array<u32>;            // (n)
@group(0) @binding(5) var<storage, read> rules: Rules;
@group(0) @binding(6) var<storage, read_write> y: array<f32>;          // (2)

var<workgroup> texts: array<Best, WORKGROUP>;
var<workgroup> times: array<Best, WORKGROUP>;
var<workgroup> broken: array<u32, WORKGROUP>;
var<workgroup> masses: array<vec2f, WORKGROUP>;   // weights of text, of times

fn is_allowed(i: u32) -> bool {
  let is_text = i >= rules.text_first && i < params.times;
  let is_time = i >= max(rules.times_first, params.times) && i < rules.times_end;
  return kinds[i] + rules.is_first < 2u && (is_text || is_time);
}

fn better(a: Best, b: Best) -> Best {
  if (b.rank > a.rank || (b.rank == a.rank && b.id < a.id)) { return b; }
  return a;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) lane: u32) {
  var text = Best(0u, NOT_A_TOKEN);
  var time = Best(0u, NOT_A_TOKEN);
  var is_broken = 0u;
  for (var i = lane; i < params.n; i += WORKGROUP) {
    let rank = rank_of(logits[i]);
    is_broken |= select(1u, 0u, is_finite(rank));
    if (!is_allowed(i)) { continue; }
    if (i < params.times) {
      text = better(text, Best(rank, i));
    } else {
      time = better(time, Best(rank, i));
    }
  }
  texts[lane] = text;
  times[lane] = time;
  broken[lane] = is_broken;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) {
      texts[lane] = better(texts[lane], texts[lane + half]);
      times[lane] = better(times[lane], times[lane + half]);
      broken[lane] |= broken[lane + half];
    }
  }
  workgroupBarrier();     // the best stand
  text = texts[0];
  time = times[0];
  let highest = value_of(max(max(text.rank, time.rank), RANK_OF_LOWEST));

  var mass = vec2f(0.0);
  if (broken[0] == 0u) {
    for (var i = lane; i < params.n; i += WORKGROUP) {
      if (!is_allowed(i)) { continue; }
      let weight = exp(bitcast<f32>(logits[i]) - highest);
      mass += select(vec2f(0.0, weight), vec2f(weight, 0.0), i < params.times);
    }
  }
  masses[lane] = mass;
  for (var half = WORKGROUP / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();   // the level below is complete
    if (lane < half) { masses[lane] += masses[lane + half]; }
  }
  if (lane == 0u) {
    mass = masses[0];
    var best = better(text, time);
    var total = mass.x + mass.y;
    if (time.rank > 0u && (text.rank == 0u || mass.y > exp(value_of(text.rank) - highest))) {
      best = time;
      total = mass.y;
    }
    let is_sound = broken[0] == 0u && best.rank > 0u;
    let next = position[0] + 1u;
    position[0] = next;
    tokens[next % params.slots] = select(NOT_A_TOKEN, best.id, is_sound);
    y[0] = select(-1.0, f32(best.id), is_sound);
    y[1] = select(0.0, exp(value_of(max(best.rank, RANK_OF_LOWEST)) - highest) / total, is_sound);
  }
}
