// transpose: y is x with its axes in another order; up to four of them.
// A lane owns one element of y and reads the one of x that it is.
// Slots: none.   Launch: flat over n.   Reference: transpose.
override WORKGROUP: u32 = 64u;

// Sizes of y's last three axes, and elements of x from one to the next along each of y's axes.
struct Params {
  n: u32, size_1: u32, size_2: u32, size_3: u32, step_0: u32, step_1: u32, step_2: u32, step_3: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let at_3 = index % params.size_3;
  let rest = index / params.size_3;
  let at_2 = rest % params.size_2;
  let at_1 = rest / params.size_2 % params.size_1;
  let at_0 = rest / params.size_2 / params.size_1;
  y[index] = x[at_0 * params.step_0 + at_1 * params.step_1 + at_2 * params.step_2
    + at_3 * params.step_3];
}
