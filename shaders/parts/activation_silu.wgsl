// activation_silu: v * sigmoid(v) (Elfwing et al. 2017). Under -80 the exponential would overflow,
// and the value is 0 in f32.
fn activation(v: vec4f) -> vec4f {
  let c = max(v, vec4f(-80.0));
  return c / (1.0 + exp(-c));
}
