// score_bias_add: a number is added to each score.
@group(0) @binding(5) var<storage, read> bias: array<f32>;   // (heads, queries, keys)

fn score_bias(index: u32) -> f32 {
  return bias[index];
}
