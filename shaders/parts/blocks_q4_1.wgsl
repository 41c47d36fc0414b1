// blocks_q4_1: d * q + m, from the block's smallest number to its largest.
const BLOCKS_A_LANE = 1u;

fn quantize(block: u32, at: u32) -> vec4f {
  var minimum = x_at(at);
  var maximum = minimum;
  for (var i = 1u; i < 8u; i++) {
    let v = x_at(at + i);
    minimum = min(minimum, v);
    maximum = max(maximum, v);
  }
  let m = min(min(minimum.x, minimum.y), min(minimum.z, minimum.w));
  let d = (max(max(maximum.x, maximum.y), max(maximum.z, maximum.w)) - m) / 15.0;
  let scale = half_of(d);
  let offset = half_of(m);
  if (is_infinite(scale) || is_infinite(offset)) { return UNFIT; }
  let kept = f16_pair(scale | (offset << 16u));
  let one = inverse(d);
  var sum = vec4f();
  blocks[block * 5u] = scale | (offset << 16u);
  for (var i = 0u; i < 4u; i++) {
    let low = q4_1_of(x_at(at + i) - m, one);
    let high = q4_1_of(x_at(at + i + 4u) - m, one);
    sum = joined(sum, error_of(at + i, vec4f(low) * kept.x + kept.y));
    sum = joined(sum, error_of(at + i + 4u, vec4f(high) * kept.x + kept.y));
    blocks[block * 5u + 1u + i] = packed_bytes(low | (high << vec4u(4u)));
  }
  return sum;
}

fn q4_1_of(above: vec4f, one: f32) -> vec4u {
  return min(vec4u(above * one + 0.5), vec4u(15u));
}
