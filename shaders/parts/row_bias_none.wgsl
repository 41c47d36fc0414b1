// row_bias_none: no bias operand.
fn row_bias_at(col: u32) -> f32 {
  return 0.0;
}
