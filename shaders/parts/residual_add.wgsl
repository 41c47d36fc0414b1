// residual_add: a second tensor, shaped like x, added before normalising.
@group(0) @binding(4) var<storage, read> residual: array<f32>;   // (rows, cols)

fn residual_at(index: u32) -> f32 {
  return residual[index];
}
