// weights_q6_k: blocks of 210 bytes for 8 runs of 32; every other block starts inside a word.
//   byte 0    2 times 64 bytes, for each 128 weights: byte i holds the lower four bits of q + 32 of
//             weight i (low half) and of weight i + 64 (high half)
//        128  2 times 32 bytes: bits 2k and 2k + 1 of byte i are the upper two of weight i + 32k
//        192  scales of 16 runs of 16 as signed bytes; then one scale for all as half
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 256 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS;

fn weight_run(row: u32, run: u32) -> Run {
  let block = (row * params.runs + run) / 8u;
  let at = block * 105u / 2u;
  let odd = block & 1u;
  let r = run & 7u;
  let bytes = half_word(block * 105u + 96u + r);
  let signed = vec2f(vec2i(vec2u(bytes << 24u, bytes << 16u)) >> vec2u(24u));
  let scale = f16_pair(half_word(block * 105u + 104u)).x * signed;
  // Words of this run's lower and upper bits.
  let low = at + r / 4u * 16u + (r & 1u) * 8u;
  let high = at + 32u + r / 4u * 8u;
  return Run(vec4f(scale.x, -32.0 * scale.x, scale.y, -32.0 * scale.y),
             four_of(low, high, odd, r), four_of(low + 1u, high + 1u, odd, r),
             four_of(low + 2u, high + 2u, odd, r), four_of(low + 3u, high + 3u, odd, r),
             four_of(low + 4u, high + 4u, odd, r), four_of(low + 5u, high + 5u, odd, r),
             four_of(low + 6u, high + 6u, odd, r), four_of(low + 7u, high + 7u, odd, r));
}

fn four_of(low: u32, high: u32, odd: u32, run: u32) -> vec4f {
  let nibbles = (word(low, odd) >> (4u * ((run / 2u) & 1u))) & 0x0f0f0f0fu;
  let upper = (word(high, odd) >> (2u * (run & 3u))) & 0x03030303u;
  return four(nibbles | (upper * 16u));
}

// The word that starts with half word `odd` of word `at`.
fn word(at: u32, odd: u32) -> u32 {
  let first = weight[at];
  return select(first, (first >> 16u) | (weight[at + odd] << 16u), odd == 1u);
}

fn half_word(at: u32) -> u32 {
  return (weight[at / 2u] >> (16u * (at & 1u))) & 0xffffu;
}
