// cap_none: scores as they are.
fn capped(score: vec4f) -> vec4f {
  return score;
}
