// softcap: y = cap * tanh(x / cap). Past 15 tanh is 1 in f32, and some drivers' overflows.
// A lane owns one element.
// Slots: none.   Launch: flat over n.   Reference: softcap.   Source: Gemma Team 2024.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, cap: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = params.cap * tanh(clamp(x[index] / params.cap, -15.0, 15.0));
}
