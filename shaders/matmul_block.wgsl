// matmul_block: z = x @ y, matrix by matrix, a register block a lane.
//   z[b,r,c] = sum_k x[b,r,k] * y[b,k,c]
// A lane owns 8 rows x 8 columns of z and walks K four at a time; no workgroup memory, no barrier.
// The 8 rows are written out because software compilers keep an indexed array in memory.
// Slots: left, right.   Launch: flat over batch * ceil(M / 8) * ceil(N / 8).   Reference: matmul.
override WORKGROUP: u32 = 64u;

// y_batch, y_k, y_col: elements of y from one matrix, row of K and column of N to the next.
struct Params {
  batch: u32, rows: u32, cols: u32, inner: u32, y_batch: u32, y_k: u32, y_col: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> z: array<f32>;   // (batch, M, N)

const SIDE = 8u;   // rows and columns of a lane

fn store(batch: u32, row: u32, col: u32, sums: vec4f) {
  if (row >= params.rows || col >= params.cols) { return; }
  let at = (batch * params.rows + row) * params.cols + col;
  z[at] = sums.x;
  if (col + 1u < params.cols) { z[at + 1u] = sums.y; }
  if (col + 2u < params.cols) { z[at + 2u] = sums.z; }
  if (col + 3u < params.cols) { z[at + 3u] = sums.w; }
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  let across = (params.cols + SIDE - 1u) / SIDE;
  let down = (params.rows + SIDE - 1u) / SIDE;
  let batch = index / (across * down);
  if (batch >= params.batch) { return; }
  let row = index / across % down * SIDE;
  let col = index % across * SIDE;

  // Rows past the edge repeat the last one: their sums are never stored.
  let first = batch * params.rows;
  let last = params.rows - 1u;
  let r0 = (first + row) * params.inner;
  let r1 = (first + min(row + 1u, last)) * params.inner;
  let r2 = (first + min(row + 2u, last)) * params.inner;
  let r3 = (first + min(row + 3u, last)) * params.inner;
  let r4 = (first + min(row + 4u, last)) * params.inner;
  let r5 = (first + min(row + 5u, last)) * params.inner;
  let r6 = (first + min(row + 6u, last)) * params.inner;
  let r7 = (first + min(row + 7u, last)) * params.inner;
  let matrix = batch * params.y_batch;

  // s: sums of the first four columns, t: of the last four.
  var s0 = vec4f();
  var t0 = vec4f();
  var s1 = vec4f();
  var t1 = vec4f();
  var s2 = vec4f();
  var t2 = vec4f();
  var s3 = vec4f();
  var t3 = vec4f();
  var s4 = vec4f();
  var t4 = vec4f();
  var s5 = vec4f();
  var t5 = vec4f();
  var s6 = vec4f();
  var t6 = vec4f();
  var s7 = vec4f();
  var t7 = vec4f();
  for (var k = 0u; k < params.inner; k += 4u) {
    let v = right_at(matrix, k, col);
    let w = right_at(matrix, k, col + 4u);
    let x0 = left_at(r0, k);
    s0 += v * x0;
    t0 += w * x0;
    let x1 = left_at(r1, k);
    s1 += v * x1;
    t1 += w * x1;
    let x2 = left_at(r2, k);
    s2 += v * x2;
    t2 += w * x2;
    let x3 = left_at(r3, k);
    s3 += v * x3;
    t3 += w * x3;
    let x4 = left_at(r4, k);
    s4 += v * x4;
    t4 += w * x4;
    let x5 = left_at(r5, k);
    s5 += v * x5;
    t5 += w * x5;
    let x6 = left_at(r6, k);
    s6 += v * x6;
    t6 += w * x6;
    let x7 = left_at(r7, k);
    s7 += v * x7;
    t7 += w * x7;
  }
  store(batch, row, col, s0);
  store(batch, row, col + 4u, t0);
  store(batch, row + 1u, col, s1);
  store(batch, row + 1u, col + 4u, t1);
  store(batch, row + 2u, col, s2);
  store(batch, row + 2u, col + 4u, t2);
  store(batch, row + 3u, col, s3);
  store(batch, row + 3u, col + 4u, t3);
  store(batch, row + 4u, col, s4);
  store(batch, row + 4u, col + 4u, t4);
  store(batch, row + 5u, col, s5);
  store(batch, row + 5u, col + 4u, t5);
  store(batch, row + 6u, col, s6);
  store(batch, row + 6u, col + 4u, t6);
  store(batch, row + 7u, col, s7);
  store(batch, row + 7u, col + 4u, t7);
}
