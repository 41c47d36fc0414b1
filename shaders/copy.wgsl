// copy: y = x, word by word: a state moves to a larger buffer.
// A lane owns one word.
// Slots: none.   Launch: flat over n.   Reference: a copy.
override WORKGROUP: u32 = 64u;

struct Params { n: u32 }   // in words

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<u32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<u32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = x[index];
}
