// activation_gelu_tanh: gelu by tanh (Hendrycks & Gimpel 2016), v * sigmoid(2u) with
// u = sqrt(2 / pi) * (v + 0.044715 * v^3). Past 10 it is v or 0, and the cube might overflow.
fn activation(v: vec4f) -> vec4f {
  let c = clamp(v, vec4f(-10.0), vec4f(10.0));
  let u = 1.5957691216 * c * (1.0 + 0.044715 * c * c);
  return max(v, vec4f(-10.0)) / (1.0 + exp(-u));
}
