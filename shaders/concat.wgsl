// concat: a, b and c side by side on the last axis.
// A lane owns one element of y.
// Slots: none.   Launch: flat over y.   Reference: concat.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, a_cols: u32, b_cols: u32, c_cols: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;         // (rows, a_cols)
@group(0) @binding(2) var<storage, read> b: array<f32>;         // (rows, b_cols)
@group(0) @binding(3) var<storage, read> c: array<f32>;         // (rows, c_cols)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // (rows, a_cols + b_cols + c_cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let left = params.a_cols + params.b_cols;
  let cols = left + params.c_cols;
  if (index >= params.rows * cols) { return; }
  let row = index / cols;
  let col = index % cols;
  if (col < params.a_cols) {
    y[index] = a[row * params.a_cols + col];
  } else if (col < left) {
    y[index] = b[row * params.b_cols + col - params.a_cols];
  } else {
    y[index] = c[row * params.c_cols + col - left];
  }
}
