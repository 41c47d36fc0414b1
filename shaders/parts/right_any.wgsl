// right_any: 4 rows of y by 4 columns, whatever way y lies; zeros past K.
@group(0) @binding(2) var<storage, read> y: array<f32>;   // (batch or 1, K, N) or (.., N, K)

// Columns past N read the last one; their results are not stored.
fn right_at(matrix: u32, k: u32, col: u32) -> mat4x4f {
  let own = min(vec4u(col, col + 1u, col + 2u, col + 3u), vec4u(params.cols - 1u));
  let at = matrix + own * params.y_col;
  return mat4x4f(right_row(at, k), right_row(at, k + 1u), right_row(at, k + 2u),
                 right_row(at, k + 3u));
}

fn right_row(cols: vec4u, k: u32) -> vec4f {
  if (k >= params.inner) { return vec4f(); }
  let at = cols + k * params.y_k;
  return vec4f(y[at.x], y[at.y], y[at.z], y[at.w]);
}
