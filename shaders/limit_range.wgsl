// limit_range: y = max(x, top - span) * scale + offset, element by element.
// A lane owns one element.
// Slots: none.   Launch: flat over n.   Reference: limit_range.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, span: f32, scale: f32, offset: f32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (n)
@group(0) @binding(2) var<storage, read> top: array<f32>;       // (1)
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (n)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = max(x[index], top[0] - params.span) * params.scale + params.offset;
}
