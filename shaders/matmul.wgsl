// matmul: z = x @ y, matrix by matrix; y lies as (K, N), or transposed as (N, K).
// A lane owns 4 x 4 elements of z, and lanes side by side share rows of x. Sums in f32.
// Slots: none.   Launch: flat over batch * ceil(M / 4) * ceil(N / 4).   Reference: matmul.
override WORKGROUP: u32 = 64u;

// y_batch, y_k, y_col: elements of y from one matrix, row of K and column of N to the next.
struct Params {
  batch: u32, rows: u32, cols: u32, inner: u32, y_batch: u32, y_k: u32, y_col: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (batch, M, K)
@group(0) @binding(2) var<storage, read> y: array<f32>;         // (batch or 1, K, N) or (.., N, K)
@group(0) @binding(3) var<storage, read_write> z: array<f32>;   // (batch, M, N)

fn store(batch: u32, row: u32, col: u32, sums: vec4f) {
  if (row >= params.rows) { return; }
  let at = (batch * params.rows + row) * params.cols + col;
  for (var i = 0u; i < min(4u, params.cols - col); i++) { z[at + i] = sums[i]; }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let across = (params.cols + 3u) / 4u;
  let down = (params.rows + 3u) / 4u;
  let batch = index / (across * down);
  if (batch >= params.batch) { return; }
  let row = index / across % down * 4u;
  let col = index % across * 4u;
  // Past an edge the last row or column is read once more; its sums are not stored.
  let own = vec4u(0u, 1u, 2u, 3u);
  let rows = (batch * params.rows + min(row + own, vec4u(params.rows - 1u))) * params.inner;
  let cols = batch * params.y_batch + min(col + own, vec4u(params.cols - 1u)) * params.y_col;
  var s0 = vec4f();
  var s1 = vec4f();
  var s2 = vec4f();
  var s3 = vec4f();
  for (var k = 0u; k < params.inner; k++) {
    let at = cols + k * params.y_k;
    let v = vec4f(y[at.x], y[at.y], y[at.z], y[at.w]);
    s0 += x[rows.x + k] * v;
    s1 += x[rows.y + k] * v;
    s2 += x[rows.z + k] * v;
    s3 += x[rows.w + k] * v;
  }
  store(batch, row, col, s0);
  store(batch, row + 1u, col, s1);
  store(batch, row + 2u, col, s2);
  store(batch, row + 3u, col, s3);
}
