// matmul_row: z = x @ y, matrix by matrix, for few rows.
//   z[b,r,c] = sum_k x[b,r,k] * y[b,k,c]
// A lane owns 1 row x 4 columns of z and walks K four at a time: no lane is spent on rows that are
// not there, as in a vector by a matrix.
// Slots: left, right.   Launch: flat over batch * M * ceil(N / 4).   Reference: matmul.
override WORKGROUP: u32 = 64u;

// y_batch, y_k, y_col: elements of y from one matrix, row of K and column of N to the next.
struct Params {
  batch: u32, rows: u32, cols: u32, inner: u32, y_batch: u32, y_k: u32, y_col: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;   // (batch, M, N)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let across = (params.cols + 3u) / 4u;
  let row = index / across;   // of all matrices
  if (row >= params.batch * params.rows) { return; }
  let col = index % across * 4u;
  let matrix = row / params.rows * params.y_batch;
  let start = row * params.inner;
  var sums = vec4f();
  for (var k = 0u; k < params.inner; k += 4u) {
    sums += right_at(matrix, k, col) * left_at(start, k);
  }
  let at = row * params.cols + col;
  z[at] = sums.x;
  if (col + 1u < params.cols) { z[at + 1u] = sums.y; }
  if (col + 2u < params.cols) { z[at + 2u] = sums.z; }
  if (col + 3u < params.cols) { z[at + 3u] = sums.w; }
}
