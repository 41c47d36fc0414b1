// array_arc: inverse sine and cosine. Needs array_core. Source: Cephes (Moshier), asinf.c.
fn asin_small(a: f32) -> f32 { // 0 to 1/2
  let z = a * a;
  var p = 4.2163199048e-2;
  p = p * z + 2.4181311049e-2;
  p = p * z + 4.5470025998e-2;
  p = p * z + 7.4953002686e-2;
  p = p * z + 1.6666752422e-1;
  return p * z * a + a;
}
fn asin_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (size > 1.0) { return not_a_number(); }
  if (size <= 0.5) { return signed_as(asin_small(size), x); }
  return signed_as(1.57079633 - 2.0 * asin_small(sqrt(0.5 * (1.0 - size))), x);
}
fn acos_f(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  let size = abs(x);
  if (size > 1.0) { return not_a_number(); }
  if (size <= 0.5) { return 1.57079633 - signed_as(asin_small(size), x); }
  let y = 2.0 * asin_small(sqrt(0.5 * (1.0 - size)));
  return select(y, 3.14159265 - y, x < 0.0);
}
