// weights_q4_k: blocks of 36 words for 8 runs: 4 words of scales, then 4 times 32 bytes; byte i of
// group g holds q of weight i of run 2g in its low half and of run 2g + 1 in its high half.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 256 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS;

fn weight_run(row: u32, run: u32) -> Run {
  let at = (row * params.runs + run) / 8u * 36u;
  let r = run & 7u;
  let q = at + 4u + r / 2u * 8u;
  return Run(k_scales(at, r), four_of(q, r), four_of(q + 1u, r), four_of(q + 2u, r),
             four_of(q + 3u, r), four_of(q + 4u, r), four_of(q + 5u, r), four_of(q + 6u, r),
             four_of(q + 7u, r));
}

fn four_of(at: u32, run: u32) -> vec4f {
  return four_low(weight[at] >> (4u * (run & 1u)));
}
