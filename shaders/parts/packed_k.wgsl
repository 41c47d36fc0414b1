// packed_k: the head of a Q4_K or Q5_K block: d and dmin in f16, then 12 bytes that pack scale s
// and minimum m of each of 8 runs in 6 bits.
//   bytes 0..3   s of runs 0..3; the top 2 bits are the top 2 bits of s of runs 4..7
//   bytes 4..7   m of runs 0..3; likewise of m of runs 4..7
//   bytes 8..11  runs 4..7: the low 4 bits of s (low half) and of m (high half)
fn k_scales(at: u32, run: u32) -> vec4f {
  let both = vec2u(weight[at + 1u], weight[at + 2u]);
  let third = weight[at + 3u];
  let shift = vec2u(8u * (run & 3u));
  let late = vec2u(third, third >> 4u) >> shift;
  let bits = select(((both >> (shift + 6u)) & vec2u(3u)) * 16u + (late & vec2u(15u)),
                    (both >> shift) & vec2u(63u), run < 4u);
  return (f16_pair(weight[at]) * vec2f(vec2i(bits)) * vec2f(1.0, -1.0)).xyxy;
}
