// blocks_f16: 32 numbers as the nearest f16, two a word. Unfit where one is past the largest.
const BLOCKS_A_LANE = 1u;

fn quantize(block: u32, at: u32) -> vec4f {
  var words: array<vec2u, 8>;
  var sum = vec4f();
  for (var i = 0u; i < 8u; i++) {
    let v = x_at(at + i);
    let made = vec4u(half_of(v.x), half_of(v.y), half_of(v.z), half_of(v.w));
    if (any((made & vec4u(HALF_INFINITE)) == vec4u(HALF_INFINITE))) { return UNFIT; }
    words[i] = made.xz | (made.yw << vec2u(16u));
    sum = joined(sum, error_of(at + i, vec4f(f16_pair(words[i].x), f16_pair(words[i].y))));
  }
  for (var i = 0u; i < 8u; i++) {
    blocks[block * 16u + 2u * i] = words[i].x;
    blocks[block * 16u + 2u * i + 1u] = words[i].y;
  }
  return sum;
}
