// columns_gated: a lane's eight weight rows are the gates of four columns, then their ups.
const COLS = 4u;

fn weight_row(col: u32, i: u32) -> u32 {
  return min(col + (i & 3u), params.cols - 1u) + select(0u, params.cols, i >= 4u);
}

fn store(row: u32, col: u32, gates: vec4f, ups: vec4f) {
  if (row >= params.rows || col >= params.cols) { return; }
  let value = activation(gates) * ups;
  let at = row * params.cols + col;
  y[at] = value.x;
  if (col + 1u < params.cols) { y[at + 1u] = value.y; }
  if (col + 2u < params.cols) { y[at + 2u] = value.z; }
  if (col + 3u < params.cols) { y[at + 3u] = value.w; }
}
