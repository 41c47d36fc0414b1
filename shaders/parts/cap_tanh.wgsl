// cap_tanh: scores within -softcap and softcap. Past 15 tanh is 1 in f32; some overflow there.
fn capped(score: vec4f) -> vec4f {
  return params.softcap * tanh(clamp(score / params.softcap, vec4f(-15.0), vec4f(15.0)));
}
