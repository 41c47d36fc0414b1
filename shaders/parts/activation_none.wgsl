// activation_none: the value itself.
fn activation(v: vec4f) -> vec4f {
  return v;
}
