// multiply: z = x * y, y repeated over x's leading axes.
// A lane owns one element.
// Slots: none.   Launch: flat over n.   Reference: multiply.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, period: u32 }   // period: elements of y

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read> y: array<f32>;         // (period)
@group(0) @binding(3) var<storage, read_write> z: array<f32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  z[index] = x[index] * y[index % params.period];
}
