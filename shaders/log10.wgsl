// log10: y = log10(max(x, minimum)), element by element.
// A lane owns one element.
// Slots: none.   Launch: flat over n.   Reference: log10.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, minimum: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (n)

const LOG10_OF_2 = 0.30102999566;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = log2(max(x[index], params.minimum)) * LOG10_OF_2;
}
