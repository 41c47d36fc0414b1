// activation_gelu: v * Phi(v), exact (Hendrycks & Gimpel 2016), not the tanh approximation.
// erf after Abramowitz & Stegun 1964, formula 7.1.26: absolute error under 1.5e-7.
fn erf(v: vec4f) -> vec4f {
  let a = abs(v);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
    + 0.254829592) * t;
  return sign(v) * (1.0 - p * exp(-a * a));
}

fn activation(v: vec4f) -> vec4f {
  return v * (0.5 + 0.5 * erf(v * 0.70710678118654752));
}
