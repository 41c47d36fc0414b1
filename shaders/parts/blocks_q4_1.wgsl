// blocks_q4_1: d * q + m, from the block's least number to its greatest.
const BLOCKS_A_LANE = 1u;

fn quantize(block: u32, at: u32) -> vec4f {
  var least = x_at(at);
  var most = least;
  for (var i = 1u; i < 8u; i++) {
    let v = x_at(at + i);
    least = min(least, v);
    most = max(most, v);
  }
  let m = min(min(least.x, least.y), min(least.z, least.w));
  let d = (max(max(most.x, most.y), max(most.z, most.w)) - m) / 15.0;
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
