// array_exp: exponentials and logarithms to a few units in the last place, where WGSL's own may
// be further off and need no infinity. Source: Cephes (Moshier), expf.c and logf.c.
fn exp2_of(n: f32) -> f32 { return bitcast<f32>(u32(i32(n) + 127) << 23u); } // n -126 to 127

// y * 2^n in two steps: the factors of very large and very small results are floats.
fn scaled(y: f32, n: f32) -> f32 {
  let first = floor(n * 0.5);
  return y * exp2_of(first) * exp2_of(n - first);
}

fn exp_kernel(r: f32) -> f32 { // exp(r) - 1 for |r| at most log(2) / 2
  var p = 1.9875691500e-4;
  p = p * r + 1.3981999507e-3;
  p = p * r + 8.3334519073e-3;
  p = p * r + 4.1665795894e-2;
  p = p * r + 1.6666665459e-1;
  p = p * r + 5.0000001201e-1;
  return p * r * r + r;
}

// Without a branch, for software adapters compute both sides of one. Results that are too large or
// too small for a float become infinity and 0 by the scaling. 1.5 * 2^23 brings a whole number into
// the low bits: WGSL's conversion to integers checks its range.
fn exp_f(x: f32) -> f32 {
  let z = select(select(x, -104.0, x < -104.0), 89.0, x > 89.0);
  let n = floor(z * 1.44269504 + 0.5);
  let k = bitcast<u32>(n + 12582912.0) - 0x4b400000u;
  let first = bitcast<u32>(bitcast<i32>(k) >> 1u);
  let r = (z - n * 0.693359375) + n * 2.12194440e-4;
  let y = (exp_kernel(r) + 1.0) * power_of_two(first) * power_of_two(k - first);
  return select(y, x, is_nan(x));
}
fn power_of_two(k: u32) -> f32 { return bitcast<f32>((k + 127u) << 23u); } // k -126 to 127, wrapped

fn expm1_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  if (abs(x) < 0.34) { return exp_kernel(x); }
  return exp_f(x) - 1.0;
}

struct Split { mantissa: f32, exponent: f32 } // mantissa from sqrt(1/2) to sqrt(2)

fn split(x: f32) -> Split {
  var bits = bitcast<u32>(x);
  var offset = 127.0;
  if (bits < 0x00800000u) { // subnormal
    bits = bitcast<u32>(x * 16777216.0);
    offset = 151.0;
  }
  let up = select(0u, 1u, (bits & 0x7fffffu) > 0x3504f3u);
  let mantissa = bitcast<f32>((bits & 0x7fffffu) | ((127u - up) << 23u));
  return Split(mantissa, f32(bits >> 23u) - offset + f32(up));
}

fn log_tail(f: f32) -> f32 { // log(1 + f) - f + f * f / 2
  var p = 7.0376836292e-2;
  p = p * f - 1.1514610310e-1;
  p = p * f + 1.1676998740e-1;
  p = p * f - 1.2420140846e-1;
  p = p * f + 1.4249322787e-1;
  p = p * f - 1.6668057665e-1;
  p = p * f + 2.0000714765e-1;
  p = p * f - 2.4999993993e-1;
  p = p * f + 3.3333331174e-1;
  return p * f * f * f;
}

// The logarithms of 0, negative numbers, infinity and NaN; `ordinary` says that x is none of them.
fn log_special(x: f32) -> f32 {
  if (x == 0.0) { return -infinity(); }
  return select(x, not_a_number(), !is_nan(x) && x < 0.0);
}
fn is_ordinary(x: f32) -> bool { return is_finite(x) && x > 0.0; }

fn log_f(x: f32) -> f32 {
  if (!is_ordinary(x)) { return log_special(x); }
  let s = split(x);
  let f = s.mantissa - 1.0;
  let y = log_tail(f) - 2.12194440e-4 * s.exponent - 0.5 * f * f;
  return (f + y) + 0.693359375 * s.exponent;
}

fn log1p_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  if (x > -0.29 && x < 0.41) { return x + (log_tail(x) - 0.5 * x * x); }
  return log_f(1.0 + x);
}

fn log2_of_mantissa(m: f32) -> f32 { // (f + y) * log2(e), the large part exactly
  let f = m - 1.0;
  let y = log_tail(f) - 0.5 * f * f;
  return y * 0.44269504 + f * 0.44269504 + y + f;
}

fn log2_f(x: f32) -> f32 {
  if (!is_ordinary(x)) { return log_special(x); }
  let s = split(x);
  return log2_of_mantissa(s.mantissa) + s.exponent;
}

fn log10_f(x: f32) -> f32 {
  if (!is_ordinary(x)) { return log_special(x); }
  let s = split(x);
  let f = s.mantissa - 1.0;
  let y = log_tail(f) - 0.5 * f * f;
  let low = (f + y) * 7.00731903e-4 + s.exponent * 2.48745663e-4;
  return low + (f + y) * 4.3359375e-1 + s.exponent * 3.00781250e-1;
}
