// half_out: a float as the bits of the nearest f16, the even one of two, as numpy rounds. Not
// pack2x16float, which may round either way and leaves numbers past the largest f16 undefined.
const HALF_INFINITE = 0x7c00u;

fn half_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  let sign = (bits >> 16u) & 0x8000u;
  let size = bits & 0x7fffffffu;
  if (size >= 0x47800000u) { return sign | HALF_INFINITE; }   // 65536 and more
  if (size < 0x33000000u) { return sign; }                    // less than half the smallest f16
  if (size >= 0x38800000u) {
    let moved = size - 0x38000000u;                           // the exponent's other bias
    return sign | ((moved + 0xfffu + ((moved >> 13u) & 1u)) >> 13u);
  }
  // A subnormal half counts units of 2^-24: the fraction and its leading 1 move to that place.
  let shift = 126u - (size >> 23u);
  let fraction = (size & 0x7fffffu) | 0x800000u;
  let whole = fraction >> shift;
  let rest = fraction & ((1u << shift) - 1u);
  let middle = 1u << (shift - 1u);
  return sign | (whole + select(0u, 1u, rest > middle || (rest == middle && (whole & 1u) == 1u)));
}

fn is_infinite(half: u32) -> bool {
  return (half & HALF_INFINITE) == HALF_INFINITE;
}
