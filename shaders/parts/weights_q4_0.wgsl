// weights_q4_0: blocks of 18 bytes: scale as half, then 16 bytes; byte i holds q + 8 of weight i in
// its low half and of weight i + 16 in its high half. Every other block starts inside a word.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 32 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS * 0x1p-4;

fn weight_run(row: u32, run: u32) -> Run {
  let block = row * params.runs + run;
  let at = block * 9u / 2u;
  let odd = (block & 1u) == 1u;
  let w = array(weight[at], weight[at + 1u], weight[at + 2u], weight[at + 3u], weight[at + 4u]);
  let both = f16_pair(w[0]);
  let scale = select(both.x, both.y, odd);
  let a = word_at(w[0], w[1], odd);
  let b = word_at(w[1], w[2], odd);
  let c = word_at(w[2], w[3], odd);
  let d = word_at(w[3], w[4], odd);
  let high = 0xf0f0f0f0u;
  return Run(vec2f(scale, -8.0 * scale).xyxy,
             four_low(a), four_low(b), four_low(c), four_low(d),
             four(a & high), four(b & high), four(c & high), four(d & high));
}
