// activation_relu: max(v, 0).
fn activation(v: vec4f) -> vec4f {
  return max(v, vec4f());
}
