// activate: y = activation(x), element by element.
// A lane owns one element.
// Slots: activation.   Launch: flat over n.   Reference: activate.
override WORKGROUP: u32 = 64u;

struct Params { n: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = activation(vec4f(x[index])).x;
}
