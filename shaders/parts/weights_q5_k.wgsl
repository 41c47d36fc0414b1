// weights_q5_k: blocks of 44 words for 8 runs: 4 words of scales, 32 bytes whose bit r is the fifth
// bit of a weight of run r, then the lower four bits as in Q4_K.
@group(0) @binding(2) var<storage, read> weight: array<u32>;   // (rows, K / 256 blocks)

const FIRST_UNITS = BYTE_UNITS;
const LAST_UNITS = BYTE_UNITS;

fn weight_run(row: u32, run: u32) -> Run {
  let at = (row * params.runs + run) / 8u * 44u;
  let r = run & 7u;
  return Run(k_scales(at, r), four_of(at, r, 0u), four_of(at, r, 1u), four_of(at, r, 2u),
             four_of(at, r, 3u), four_of(at, r, 4u), four_of(at, r, 5u), four_of(at, r, 6u),
             four_of(at, r, 7u));
}

fn four_of(at: u32, run: u32, i: u32) -> vec4f {
  let fifth = (weight[at + 4u + i] >> run) & 0x01010101u;
  let low = (weight[at + 12u + run / 2u * 8u + i] >> (4u * (run & 1u))) & 0x0f0f0f0fu;
  return four(low | (fifth * 16u));
}
