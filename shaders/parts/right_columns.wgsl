// right_columns: 4 rows of y by 4 columns, y lying transposed, as (N, K). K is a multiple of 4.
@group(0) @binding(2) var<storage, read> y: array<vec4f>;   // (batch or 1, N, K / 4)

// Columns past N read the last one; their results are not stored.
fn right_at(matrix: u32, k: u32, col: u32) -> mat4x4f {
  let own = min(vec4u(col, col + 1u, col + 2u, col + 3u), vec4u(params.cols - 1u));
  let at = (matrix + own * params.inner + k) / 4u;
  return transpose(mat4x4f(y[at.x], y[at.y], y[at.z], y[at.w]));
}
