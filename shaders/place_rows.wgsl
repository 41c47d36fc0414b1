// place_rows: x as rows `first` on of y; the others stay what they are.
// A lane owns one element of x.
// Slots: none.   Launch: flat over x.   Reference: place_rows.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, start: u32 }   // in elements; start = first * columns

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (rows, columns)
@group(0) @binding(2) var<storage, read_write> y: array<f32>;   // (whole, columns)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[params.start + index] = x[index];
}
