// kv_append: rows into the slots of a cache, from a position on, around its end.
//   cache[(position + t) % slots] = kv[t];   y = position + tokens
// A lane owns two elements: a word of an f16 cache.
// Slots: cache_out.   Launch: flat over tokens * pairs.   Reference: kv_append.
override WORKGROUP: u32 = 64u;

struct Params { tokens: u32, slots: u32, pairs: u32 }   // pairs: of a row

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> kv: array<vec2f>;          // (tokens, pairs)
@group(0) @binding(3) var<storage, read> position: array<u32>;      // (1)
@group(0) @binding(4) var<storage, read_write> y: array<u32>;       // (1)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index == 0u) { y[0] = position[0] + params.tokens; }
  let token = index / params.pairs;
  if (token >= params.tokens) { return; }
  if (token + params.slots < params.tokens) { return; }   // a later token takes this slot
  let slot = (position[0] + token) % params.slots;
  keep_pair(slot * params.pairs + index % params.pairs, kv[index]);
}
