// columns_plain: a lane's eight weight rows are eight columns side by side.
const COLS = 8u;

fn weight_row(col: u32, i: u32) -> u32 {
  return min(col + i, params.cols - 1u);
}

fn store(row: u32, col: u32, first: vec4f, last: vec4f) {
  store_four(row, col, first);
  store_four(row, col + 4u, last);
}

fn store_four(row: u32, col: u32, sums: vec4f) {
  if (row >= params.rows || col >= params.cols) { return; }
  let bias = vec4f(bias_at(col), bias_at(col + 1u), bias_at(col + 2u), bias_at(col + 3u));
  let value = activation(sums + bias);
  let at = row * params.cols + col;
  y[at] = value.x + residual_at(at);
  if (col + 1u < params.cols) { y[at + 1u] = value.y + residual_at(at + 1u); }
  if (col + 2u < params.cols) { y[at + 2u] = value.z + residual_at(at + 2u); }
  if (col + 3u < params.cols) { y[at + 3u] = value.w + residual_at(at + 3u); }
}
