// packed: numbers out of words. Software adapters shift a vector lane by lane, so bytes come out by
// masks alone and stay at their place: byte n of a word counts 256^n too much, which the units make
// good. By way of i32, because CPUs have no instruction from u32 to f32.
const BYTE_UNITS = vec4f(1.0, 0x1p-8, 0x1p-16, 0x1p-24);

// The four bytes of a word, each times 256^n. The highest bit would be a sign: it comes and goes.
fn four(word: u32) -> vec4f {
  let low = vec3f(vec3i(vec3u(word) & vec3u(0xffu, 0xff00u, 0xff0000u)));
  return vec4f(low, f32(i32((word & 0xff000000u) ^ 0x80000000u)) + 0x1p31);
}

// The lower half of each byte, likewise.
fn four_low(word: u32) -> vec4f {
  return vec4f(vec4i(vec4u(word) & vec4u(0xfu, 0xf00u, 0xf0000u, 0xf000000u)));
}

// The two f16 of a word as numbers. Not unpack2x16float, which may flush subnormals: the scales of
// K blocks are that small. Scales are never infinite or NaN.
fn f16_pair(word: u32) -> vec2f {
  let bits = vec2u(word & 0xffffu, word >> 16u);
  let normal = bitcast<vec2f>((bits & vec2u(0x7fffu)) * 8192u + vec2u(0x38000000u));
  let small = vec2f(vec2i(bits & vec2u(0x3ffu))) * 0x1p-24;
  let size = select(normal, small, (bits & vec2u(0x7c00u)) == vec2u());
  return select(size, -size, bits >= vec2u(0x8000u));
}
