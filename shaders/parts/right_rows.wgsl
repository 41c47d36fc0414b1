// right_rows: 4 rows of y by 4 columns, y lying as (K, N). K and N are multiples of 4.
@group(0) @binding(2) var<storage, read> y: array<vec4f>;   // (batch or 1, K, N / 4)

// Columns past N read the last four; their results are not stored.
fn right_at(matrix: u32, k: u32, col: u32) -> mat4x4f {
  let step = params.cols / 4u;
  let at = matrix / 4u + k * step + min(col, params.cols - 4u) / 4u;
  return mat4x4f(y[at], y[at + step], y[at + 2u * step], y[at + 3u * step]);
}
