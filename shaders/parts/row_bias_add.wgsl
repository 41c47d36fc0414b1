// row_bias_add: one row added to every token (BERT's token type 0).
@group(0) @binding(4) var<storage, read> row_bias: array<f32>;   // (cols)

fn row_bias_at(col: u32) -> f32 {
  return row_bias[col];
}
