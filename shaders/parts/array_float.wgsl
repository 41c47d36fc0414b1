// array_float: exact remainders, hypotenuses and neighbours of floats. Needs array_core.
// The remainder of a / b by shifted subtraction of whole mantissas: exact for any quotient.
fn fmod_f(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  if (is_nan(b)) { return b; }
  if (is_inf(a) || b == 0.0) { return not_a_number(); }
  if (is_inf(b) || abs(a) < abs(b)) { return a; }
  var ea = i32((bitcast<u32>(a) >> 23u) & 0xffu);
  var eb = i32((bitcast<u32>(b) >> 23u) & 0xffu);
  var ma = bitcast<u32>(a) & 0x7fffffu;
  var mb = bitcast<u32>(b) & 0x7fffffu;
  if (ea == 0) { ea = 1; } else { ma |= 0x800000u; }
  if (eb == 0) { eb = 1; } else { mb |= 0x800000u; }
  for (; ea > eb; ea--) {
    ma = (ma % mb) << 1u;
  }
  ma %= mb;
  if (ma == 0u) { return signed_as(0.0, a); }
  let lost = min(u32(eb - 1), countLeadingZeros(ma) - 8u);
  ma <<= lost;
  let exponent = select(0u, u32(eb) - lost, (ma & 0x800000u) != 0u);
  return signed_as(bitcast<f32>((exponent << 23u) | (ma & 0x7fffffu)), a);
}

fn remainder_f(a: f32, b: f32) -> f32 {
  let r = fmod_f(a, b);
  if (is_nan(r)) { return r; }
  if (r == 0.0) { return signed_as(0.0, b); }
  if (is_signed(r) == is_signed(b)) { return r; }
  return r + b;
}

fn floor_div_f(a: f32, b: f32) -> f32 {
  if (is_nan(a) || is_nan(b) || b == 0.0) { return a / b; }
  if (is_inf(a)) { return not_a_number(); }
  let r = fmod_f(a, b);
  var q = (a - r) / b;
  if (r != 0.0 && is_signed(r) != is_signed(b)) { q -= 1.0; }
  if (q == 0.0) { return signed_as(0.0, a / b); }
  let whole = floor(q);
  return select(whole, whole + 1.0, q - whole > 0.5);
}

fn hypot_f(a: f32, b: f32) -> f32 {
  if (is_inf(a) || is_inf(b)) { return infinity(); }
  if (is_nan(a) || is_nan(b)) { return a + b; }
  let large = max(abs(a), abs(b));
  let small = min(abs(a), abs(b));
  if (large == 0.0) { return 0.0; }
  let ratio = small / large;
  return large * sqrt(1.0 + ratio * ratio);
}

fn nextafter_f(a: f32, b: f32) -> f32 {
  if (is_nan(a)) { return a; }
  if (is_nan(b)) { return b; }
  if (a == b) { return b; }
  if (a == 0.0) { return bitcast<f32>((bitcast<u32>(b) & 0x80000000u) | 1u); }
  let away = (a < b) == (a > 0.0);
  return bitcast<f32>(select(bitcast<u32>(a) - 1u, bitcast<u32>(a) + 1u, away));
}
