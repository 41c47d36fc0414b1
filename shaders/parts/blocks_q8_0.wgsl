// blocks_q8_0: d * q, the number furthest from 0 becoming 127 or -127. Ties round away from 0.
const DATA_WORDS = 8u;

fn quantize(block: u32, at: u32) -> vec4f {
  var size = abs(x_at(at));
  for (var i = 1u; i < 8u; i++) { size = max(size, abs(x_at(at + i))); }
  let d = max(max(size.x, size.y), max(size.z, size.w)) / 127.0;
  let scale = half_of(d);
  if (is_infinite(scale)) { return UNFIT; }
  let kept = f16_pair(scale).x;
  let one = inverse(d);
  var data: array<u32, DATA_WORDS>;
  var sum = vec4f();
  for (var i = 0u; i < 8u; i++) {
    let v = x_at(at + i) * one;
    let whole = floor(abs(v));
    let q = sign(v) * (whole + floor(2.0 * (abs(v) - whole)));
    sum = joined(sum, error_of(at + i, q * kept));
    data[i] = packed_bytes(bitcast<vec4u>(vec4i(q)));
  }
  put_block(block, scale, data);
  return sum;
}
