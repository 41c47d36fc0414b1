// blocks_q4_0: d * (q - 8). The number furthest from 0 becomes -8 exactly.
const DATA_WORDS = 4u;

fn quantize(block: u32, at: u32) -> vec4f {
  var furthest = x_at(at).x;
  for (var i = 0u; i < 8u; i++) {
    let v = x_at(at + i);
    if (abs(v.x) > abs(furthest)) { furthest = v.x; }
    if (abs(v.y) > abs(furthest)) { furthest = v.y; }
    if (abs(v.z) > abs(furthest)) { furthest = v.z; }
    if (abs(v.w) > abs(furthest)) { furthest = v.w; }
  }
  let d = furthest * -0.125;
  let scale = half_of(d);
  if (is_infinite(scale)) { return UNFIT; }
  let kept = f16_pair(scale).x;
  let one = inverse(d);
  var data: array<u32, DATA_WORDS>;
  var sum = vec4f();
  for (var i = 0u; i < 4u; i++) {
    let low = q4_0_of(x_at(at + i), one);
    let high = q4_0_of(x_at(at + i + 4u), one);
    sum = joined(sum, error_of(at + i, (vec4f(low) - 8.0) * kept));
    sum = joined(sum, error_of(at + i + 4u, (vec4f(high) - 8.0) * kept));
    data[i] = packed_bytes(low | (high << vec4u(4u)));
  }
  put_block(block, scale, data);
  return sum;
}

fn q4_0_of(v: vec4f, one: f32) -> vec4u {
  return min(vec4u(v * one + 8.5), vec4u(15u));
}
