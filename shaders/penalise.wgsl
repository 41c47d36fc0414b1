// penalise: make recent tokens less likely, each once however often it came.
//   y = x / penalty where x > 0, else x * penalty, for the ids of the last `window` tokens
// A lane owns 32 ids and notes in the bits of a word which of them came. A penalty of 0 counts as
// 1.
// Slots: none.   Launch: flat over n / 32.   Source: Keskar et al. 2019.   Reference: penalise.
override WORKGROUP: u32 = 16u;

struct Params { n: u32, slots: u32 }   // n logits
struct Settings { temperature: f32, top_k: u32, top_p: f32, min_p: f32, penalty: f32, window: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> logits: array<f32>;      // (1, n)
@group(0) @binding(2) var<storage, read> tokens: array<u32>;      // (slots)
@group(0) @binding(3) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(4) var<storage, read> settings: Settings;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;     // (1, n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let start = ((group.y * groups.x + group.x) * WORKGROUP + lane) * 32u;
  if (start >= params.n) { return; }
  // What is older than the ring is gone, and nothing came before position 0.
  let count = min(min(settings.window, params.slots), position[0] + 1u);
  var slot = position[0] % params.slots;
  var came = 0u;
  for (var i = 0u; i < count; i++) {
    let bit = tokens[slot] - start;   // an id below wraps around to a large number
    came |= select(0u, 1u << (bit % 32u), bit < 32u);
    slot = select(slot, params.slots, slot == 0u) - 1u;
  }
  if (settings.penalty <= 0.0) { came = 0u; }
  for (var i = start; i < min(start + 32u, params.n); i++) {
    let x = logits[i];
    let penalised = select(x * settings.penalty, x / settings.penalty, x > 0.0);
    y[i] = select(x, penalised, ((came >> (i - start)) & 1u) == 1u);
  }
}
