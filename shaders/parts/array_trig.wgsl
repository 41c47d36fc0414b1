// array_trig: sine, cosine and their kin for every finite float. Needs array_core.
// Source: Cephes (Moshier), sinf.c, atanf.c, asinf.c; large arguments after Payne & Hanek 1983.
const TWO_OVER_PI = array<u32, 9>(0u, 0xa2f9836eu, 0x4e441529u, 0xfc2757d1u, 0xf534ddc0u,
                                  0xdb629599u, 0x3c439041u, 0xfe5163abu, 0xdebbc561u);

struct Angle { rest: f32, quadrant: u32 } // x = quadrant * pi / 2 + rest

fn high_product(a: u32, b: u32) -> u32 { // the upper word of a * b
  let low = (a & 0xffffu) * (b & 0xffffu);
  let mid = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
  let other = (a & 0xffffu) * (b >> 16u) + (mid & 0xffffu);
  return (a >> 16u) * (b >> 16u) + (mid >> 16u) + (other >> 16u);
}

fn window(bit: u32) -> u32 { // 32 bits of 2 / pi from there on, 32 zeros before it
  var words = TWO_OVER_PI;
  let at = bit >> 5u;
  let shift = bit & 31u;
  if (shift == 0u) { return words[at]; }
  return (words[at] << shift) | (words[at + 1u] >> (32u - shift));
}

fn angle_of(x: f32) -> Angle {
  let size = abs(x);
  var found: Angle;
  if (size < 8192.0) {
    let n = round(size * 0.636619772);
    let rest = ((size - n * 1.5703125) - n * 4.837512969970703125e-4) - n * 7.54978995489188216e-8;
    found = Angle(rest, u32(n));
  } else {
    let mantissa = (bitcast<u32>(x) & 0x7fffffu) | 0x800000u;
    let first = ((bitcast<u32>(x) >> 23u) & 0xffu) - 150u + 30u;
    let low = high_product(mantissa, window(first + 64u));
    let mid = mantissa * window(first + 32u);
    let sum = low + mid;
    let carry = select(0u, 1u, sum < mid);
    let high = mantissa * window(first) + high_product(mantissa, window(first + 32u)) + carry;
    let quadrant = (high + 0x20000000u) >> 30u;
    let fraction = bitcast<i32>((high << 2u) | (sum >> 30u));
    found = Angle(f32(fraction) * 3.6572951981e-10, quadrant);
  }
  if (x < 0.0) { found = Angle(-found.rest, (4u - (found.quadrant & 3u))); }
  return Angle(found.rest, found.quadrant & 3u);
}

fn sin_kernel(r: f32) -> f32 {
  let z = r * r;
  return ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r;
}
fn cos_kernel(r: f32) -> f32 {
  let z = r * r;
  let p = (2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2;
  return p * z * z - 0.5 * z + 1.0;
}
fn turned(angle: Angle, more: u32) -> f32 {
  let quadrant = (angle.quadrant + more) & 3u;
  let y = select(sin_kernel(angle.rest), cos_kernel(angle.rest), (quadrant & 1u) == 1u);
  return select(y, -y, quadrant > 1u);
}

fn sin_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  if (is_inf(x)) { return not_a_number(); }
  return turned(angle_of(x), 0u);
}
fn cos_f(x: f32) -> f32 {
  if (!is_finite(x)) { return not_a_number(); }
  return turned(angle_of(x), 1u);
}
fn tan_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  if (is_inf(x)) { return not_a_number(); }
  let angle = angle_of(x);
  return turned(angle, 0u) / turned(angle, 1u);
}

fn atan_f(x: f32) -> f32 {
  if (is_nan(x) || x == 0.0) { return x; }
  let size = abs(x);
  if (is_inf(x)) { return signed_as(1.57079633, x); }
  var y = 0.0;
  var t = size;
  if (size > 2.414213562) {
    y = 1.57079633;
    t = -1.0 / size;
  } else if (size > 0.4142135624) {
    y = 0.785398163;
    t = (size - 1.0) / (size + 1.0);
  }
  let z = t * t;
  let p = ((8.05374449538e-2 * z - 1.38776856032e-1) * z + 1.99777106478e-1) * z;
  return signed_as(y + ((p - 3.33329491539e-1) * z * t + t), x);
}

fn atan2_f(y: f32, x: f32) -> f32 {
  if (is_nan(x) || is_nan(y)) { return x + y; }
  let left = is_signed(x);
  if (y == 0.0) { return signed_as(select(0.0, 3.14159265, left), y); }
  if (is_inf(y)) {
    let slant = select(0.785398163, 2.35619449, left);
    return signed_as(select(1.57079633, slant, is_inf(x)), y);
  }
  if (is_inf(x)) { return signed_as(select(0.0, 3.14159265, left), y); }
  if (x == 0.0) { return signed_as(1.57079633, y); }
  let turn = atan_f(abs(y / x));
  return signed_as(select(turn, 3.14159265 - turn, left), y);
}
