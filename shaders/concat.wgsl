// concat: two to seven tensors side by side on the last axis.
// A lane owns one element of y. A tensor that is not there has no columns, and a is bound again.
// Slots: none.   Launch: flat over y.   Reference: concat.
override WORKGROUP: u32 = 64u;

// y's column after the last of each tensor.
struct Params {
  rows: u32, a_end: u32, b_end: u32, c_end: u32, d_end: u32, e_end: u32, f_end: u32, g_end: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;         // (rows, a_end)
@group(0) @binding(2) var<storage, read> b: array<f32>;         // (rows, b_end - a_end)
@group(0) @binding(3) var<storage, read> c: array<f32>;         // (rows, c_end - b_end), ...
@group(0) @binding(4) var<storage, read> d: array<f32>;
@group(0) @binding(5) var<storage, read> e: array<f32>;
@group(0) @binding(6) var<storage, read> f: array<f32>;
@group(0) @binding(7) var<storage, read> g: array<f32>;
@group(0) @binding(8) var<storage, read_write> y: array<f32>;   // (rows, g_end)

// Where column col of y stands in row `row` of a tensor of y's columns start to end.
fn place(row: u32, col: u32, start: u32, end: u32) -> u32 {
  return row * (end - start) + col - start;
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let p = params;
  if (index >= p.rows * p.g_end) { return; }
  let row = index / p.g_end;
  let col = index % p.g_end;
  var value: f32;
  if (col < p.a_end) {
    value = a[place(row, col, 0u, p.a_end)];
  } else if (col < p.b_end) {
    value = b[place(row, col, p.a_end, p.b_end)];
  } else if (col < p.c_end) {
    value = c[place(row, col, p.b_end, p.c_end)];
  } else if (col < p.d_end) {
    value = d[place(row, col, p.c_end, p.d_end)];
  } else if (col < p.e_end) {
    value = e[place(row, col, p.d_end, p.e_end)];
  } else if (col < p.f_end) {
    value = f[place(row, col, p.e_end, p.f_end)];
  } else {
    value = g[place(row, col, p.f_end, p.g_end)];
  }
  y[index] = value;
}
