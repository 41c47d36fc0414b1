// array_power: powers, hyperbolic functions, remainders and neighbours of floats. Needs array_core
// and array_exp. Special values as in C's Annex F, which numpy follows.
fn is_odd(y: f32) -> bool { // a whole number that is odd
  let size = abs(y);
  return size < 16777216.0 && trunc(size) == size && (u32(size) & 1u) == 1u;
}

fn pow_magnitude(x: f32, y: f32) -> f32 { // x positive or 0 or infinity, y finite and not 0
  if (x == 0.0 || is_inf(x)) { return select(infinity(), 0.0, (x == 0.0) == (y > 0.0)); }
  let s = split(x);
  let large = y * s.exponent;
  let small = y * log2_of_mantissa(s.mantissa);
  let n = round(large + small);
  if (n > 160.0) { return infinity(); }
  if (n < -160.0) { return 0.0; }
  return scaled(exp_kernel(((large - n) + small) * 0.69314718) + 1.0, n);
}

fn pow_whole(x: f32, n: u32) -> f32 {
  var y = 1.0;
  var square = x;
  for (var rest = n; rest > 0u; rest >>= 1u) {
    if ((rest & 1u) == 1u) { y *= square; }
    square *= square;
  }
  return y;
}

fn pow_f(x: f32, y: f32) -> f32 {
  if (y == 0.0 && !is_nan(y)) { return 1.0; }
  if (x == 1.0 && !is_nan(x)) { return 1.0; }
  if (is_nan(x)) { return x; }
  if (is_nan(y)) { return y; }
  let size = abs(x);
  if (is_inf(y)) {
    if (size == 1.0) { return 1.0; }
    return select(0.0, infinity(), (size > 1.0) == (y > 0.0));
  }
  let whole = abs(y) >= 8388608.0 || trunc(y) == y;
  if (is_finite(x) && y > 0.0 && y <= 8.0 && whole) { return pow_whole(x, u32(y)); }
  if (x < 0.0 && !whole && is_finite(x)) { return not_a_number(); }
  let found = pow_magnitude(size, y);
  return select(found, -found, is_signed(x) && is_odd(y));
}

fn tanh_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (size > 9.1) { return signed_as(1.0, x); }
  if (size < 0.625) { // Cephes, tanhf.c
    let z = x * x;
    var p = -5.70498872745e-3;
    p = p * z + 2.06390887954e-2;
    p = p * z - 5.37397155531e-2;
    p = p * z + 1.33314422036e-1;
    p = p * z - 3.33332819422e-1;
    return p * z * x + x;
  }
  return signed_as(1.0 - 2.0 / (exp_f(2.0 * size) + 1.0), x);
}

fn sinh_f(x: f32) -> f32 {
  if (!is_finite(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (size < 1.0) { // Cephes, sinhf.c
    let z = x * x;
    return ((2.03721912945e-4 * z + 8.33028376239e-3) * z + 1.66667160211e-1) * z * x + x;
  }
  let half = exp_f(size * 0.5); // exp(x) / 2 without a larger number on the way
  return signed_as((0.5 * half) * half - 0.5 / (half * half), x);
}

fn cosh_f(x: f32) -> f32 {
  if (!is_finite(x)) { return abs(x); }
  let half = exp_f(abs(x) * 0.5);
  return (0.5 * half) * half + 0.5 / (half * half);
}

fn asinh_f(x: f32) -> f32 {
  if (!is_finite(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (size > 1.0e4) { return signed_as(log_f(size) + 0.69314718, x); }
  let z = size * size;
  return signed_as(log1p_f(size + z / (1.0 + sqrt(1.0 + z))), x);
}

fn acosh_f(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  if (x < 1.0) { return not_a_number(); }
  if (is_inf(x)) { return x; }
  if (x > 1.0e4) { return log_f(x) + 0.69314718; }
  let t = x - 1.0;
  return log1p_f(t + sqrt(t * (t + 2.0)));
}

fn atanh_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (size > 1.0) { return not_a_number(); }
  if (size == 1.0) { return signed_as(infinity(), x); }
  return signed_as(0.5 * log1p_f(2.0 * size / (1.0 - size)), x);
}

fn logaddexp_f(a: f32, b: f32) -> f32 {
  if (is_nan(a) || is_nan(b)) { return a + b; }
  let high = max(a, b);
  if (is_inf(high)) { return high; }
  return high + log1p_f(exp_f(min(a, b) - high));
}

fn sqrt_f(x: f32) -> f32 {
  let special = select(x, not_a_number(), x < 0.0);
  return select(special, sqrt(x), bitcast<u32>(x) - 1u < 0x7f7fffffu); // above 0, and finite
}
