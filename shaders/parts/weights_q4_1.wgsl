// weights_q4_1: blocks of 5 words: scale and offset in f16, then 16 bytes; byte i holds q of
// weight i in its low half and of weight i + 16 in its high half.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 32 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS * 0x1p-4;

fn weight_run(row: u32, run: u32) -> Run {
  let at = (row * params.runs + run) * 5u;
  let a = weight[at + 1u];
  let b = weight[at + 2u];
  let c = weight[at + 3u];
  let d = weight[at + 4u];
  let high = 0xf0f0f0f0u;
  return Run(f16_pair(weight[at]).xyxy, four_low(a), four_low(b), four_low(c), four_low(d),
             four(a & high), four(b & high), four(c & high), four(d & high));
}
