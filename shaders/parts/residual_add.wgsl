// residual_add: a second tensor, added before normalising or to a product.
@group(0) @binding(4) var<storage, read> residual: array<f32>;   // shaped like y

fn residual_at(index: u32) -> f32 {
  return residual[index];
}
