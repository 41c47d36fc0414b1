// array_core: what expressions on arrays need everywhere. Compilers may assume that there is no
// NaN and no infinity, so that both are tested by their bits and built from a variable.
var<private> infinity_bits: u32 = 0x7f800000u;
var<private> nan_bits: u32 = 0x7fc00000u;

fn is_nan(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u; }
fn is_inf(x: f32) -> bool { return (bitcast<u32>(x) & 0x7fffffffu) == 0x7f800000u; }
fn is_finite(x: f32) -> bool { return (bitcast<u32>(x) & 0x7f800000u) != 0x7f800000u; }
fn is_signed(x: f32) -> bool { return (bitcast<u32>(x) >> 31u) == 1u; }
fn infinity() -> f32 { return bitcast<f32>(infinity_bits); }
fn not_a_number() -> f32 { return bitcast<f32>(nan_bits); }
fn signed_as(x: f32, sign: f32) -> f32 {
  return bitcast<f32>((bitcast<u32>(x) & 0x7fffffffu) | (bitcast<u32>(sign) & 0x80000000u));
}

// Without branches, and with one comparison for two numbers: software adapters compute both sides
// of a branch, and most of what they reduce is cheaper than two tests for NaN.
fn ordered(a: f32, b: f32) -> bool {
  return max(bitcast<u32>(a) & 0x7fffffffu, bitcast<u32>(b) & 0x7fffffffu) <= 0x7f800000u;
}
fn first_nan(a: f32, b: f32) -> f32 { return select(b, a, is_nan(a)); }
fn equal_f(a: f32, b: f32) -> bool { return ordered(a, b) && a == b; }
fn less_f(a: f32, b: f32) -> bool { return ordered(a, b) && a < b; }
fn least_f(a: f32, b: f32) -> bool { return ordered(a, b) && a <= b; }
fn min_f(a: f32, b: f32) -> f32 {
  return select(first_nan(a, b), select(a, b, b < a), ordered(a, b));
}
fn max_f(a: f32, b: f32) -> f32 {
  return select(first_nan(a, b), select(a, b, b > a), ordered(a, b));
}
fn better_min_f(a: f32, b: f32) -> bool { return !is_nan(b) && (is_nan(a) || a < b); }
fn better_max_f(a: f32, b: f32) -> bool { return !is_nan(b) && (is_nan(a) || a > b); }
fn sign_f(x: f32) -> f32 {
  if (is_nan(x)) { return x; }
  return select(f32(x > 0.0), -1.0, x < 0.0);
}

// The nearest float16, ties to even; past 65504 infinity.
fn to_half(x: f32) -> f32 {
  let bits = bitcast<u32>(x);
  let magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x7f800000u) { return x; }
  if (magnitude >= 0x477ff000u) { return signed_as(infinity(), x); }
  if (magnitude < 0x38800000u) { // below 2^-14 f16 numbers are 2^-24 apart
    return signed_as(round(abs(x) * 16777216.0) * 5.9604644775390625e-8, x);
  }
  let rounded = (magnitude + 0xfffu + ((magnitude >> 13u) & 1u)) & 0xffffe000u;
  return bitcast<f32>(rounded | (bits & 0x80000000u));
}

// From floats to integers as C casts within range; outside of it the nearest end, and 0 for NaN.
fn to_i32(x: f32) -> i32 {
  if (is_nan(x)) { return 0; }
  if (x >= 2147483648.0) { return 2147483647; }
  if (x <= -2147483648.0) { return -2147483647 - 1; }
  return i32(x);
}
fn to_u32(x: f32) -> u32 {
  if (is_nan(x)) { return 0u; }
  if (x < 0.0) { return bitcast<u32>(to_i32(x)); }
  return select(u32(min(x, 4294967040.0)), 4294967295u, x >= 4294967296.0);
}

fn floor_div_i(a: i32, b: i32) -> i32 {
  if (b == 0) { return 0; }
  if (b == -1) { return -a; }
  let q = a / b;
  return select(q, q - 1, (a - q * b) != 0 && ((a < 0) != (b < 0)));
}
fn remainder_i(a: i32, b: i32) -> i32 {
  if (b == 0 || b == -1) { return 0; }
  let r = a - (a / b) * b;
  return select(r, r + b, r != 0 && ((r < 0) != (b < 0)));
}
fn floor_div_u(a: u32, b: u32) -> u32 { return select(a / max(b, 1u), 0u, b == 0u); }
fn remainder_u(a: u32, b: u32) -> u32 { return select(a % max(b, 1u), 0u, b == 0u); }
fn shift_left_i(a: i32, b: i32) -> i32 { return select(a << (u32(b) & 31u), 0, u32(b) > 31u); }
fn shift_left_u(a: u32, b: u32) -> u32 { return select(a << (b & 31u), 0u, b > 31u); }
fn shift_right_i(a: i32, b: i32) -> i32 { return a >> min(u32(b), 31u); }
fn shift_right_u(a: u32, b: u32) -> u32 { return select(a >> (b & 31u), 0u, b > 31u); }
fn pow_u(a: u32, b: u32) -> u32 {
  var y = 1u;
  var square = a;
  for (var n = b; n > 0u; n >>= 1u) {
    if ((n & 1u) == 1u) { y *= square; }
    square *= square;
  }
  return y;
}
fn pow_i(a: i32, b: i32) -> i32 {
  if (b < 0) { return select(0, select(1, a, (b & 1) == 1), a == 1 || a == -1); }
  return bitcast<i32>(pow_u(bitcast<u32>(a), u32(b)));
}
