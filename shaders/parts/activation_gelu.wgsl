// activation_gelu: v * Phi(v), exact (Hendrycks & Gimpel 2016), not the tanh approximation.
// erf within 2e-7 in f32 arithmetic: under 1 a polynomial in v^2 (Chebyshev fit of erf(v) / v),
// from 1 on Abramowitz & Stegun 1964, formula 7.1.26, whose 1 - p cancels for small v.
fn erf(v: vec4f) -> vec4f {
  let a = abs(v);
  let s = min(a * a, vec4f(1.0));
  let near = v * (((((-0.00056541059 * s + 0.00492327753) * s - 0.02671638504) * s
    + 0.11280364543) * s - 0.37612348795) * s + 1.12837910652);
  let t = 1.0 / (1.0 + 0.3275911 * a);
  let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t
    + 0.254829592) * t;
  return select(sign(v) * (1.0 - p * exp(-a * a)), near, a < vec4f(1.0));
}

fn activation(v: vec4f) -> vec4f {
  return v * (0.5 + 0.5 * erf(v * 0.70710678118654752));
}
