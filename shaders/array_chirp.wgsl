// array_chirp: y[r, k] = x[r, k] * w[k] for k below `inside`, else 0; complex numbers.
// A lane owns one element. Bluestein's transform of any length is three of these around two
// transforms of a power of two.
// Slots: none.   Launch: flat over lanes = rows * y_width.   Source: Bluestein 1970.
// Reference: py/bascule/array/transforms.py.
override WORKGROUP: u32 = 64u;

struct Params { lanes: u32, x_width: u32, y_width: u32, inside: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2f>;        // (rows, x_width)
@group(0) @binding(2) var<storage, read> w: array<vec2f>;        // (inside)
@group(0) @binding(3) var<storage, read_write> y: array<vec2f>;  // (rows, y_width)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.lanes) { return; }
  let k = index % params.y_width;
  var found = vec2f(0.0, 0.0);
  if (k < params.inside) {
    let a = x[index / params.y_width * params.x_width + k];
    let b = w[k];
    found = vec2f(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x);
  }
  y[index] = found;
}
