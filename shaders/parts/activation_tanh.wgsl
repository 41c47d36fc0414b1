// activation_tanh: past 15 tanh is 1 in f32; some drivers overflow in exp on the way there.
fn activation(v: vec4f) -> vec4f {
  return tanh(clamp(v, vec4f(-15.0), vec4f(15.0)));
}
