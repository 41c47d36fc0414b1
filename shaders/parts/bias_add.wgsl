// bias_add: one value a column. A column past the end reads the last one; its result is not stored.
@group(0) @binding(3) var<storage, read> bias: array<f32>;   // (cols)

fn bias_at(col: u32) -> f32 {
  return bias[min(col, arrayLength(&bias) - 1u)];
}
