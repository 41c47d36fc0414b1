// magnitude: y[r, k] = sqrt(x[r, k]^2 + x[r, K + k]^2).
// A lane owns one element of y.
// Slots: none.   Launch: flat over n.   Reference: magnitude.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, half: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n / half, 2 * half)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (n / half, half)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let real = index + index / params.half * params.half;
  let pair = vec2f(x[real], x[real + params.half]);
  y[index] = sqrt(dot(pair, pair));
}
