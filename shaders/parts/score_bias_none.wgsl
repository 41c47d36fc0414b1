// score_bias_none: scores as they are.
fn score_bias(index: u32) -> f32 {
  return 0.0;
}
