// activation_silu: v * sigmoid(v) (Elfwing et al. 2017). Under -80 the exponential would overflow.
fn activation(v: vec4f) -> vec4f {
  return v / (1.0 + exp(-max(v, vec4f(-80.0))));
}
