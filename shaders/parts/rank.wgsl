// rank: whole numbers in the order of the floats whose bits they are. -0 ranks as 0, a NaN as 0u,
// below -inf.
const RANK_OF_NONE = 0u;                  // a NaN
const RANK_OF_LOWEST = 0x00800000u;       // the most negative finite float

fn rank_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return RANK_OF_NONE; }
  if (bits > 0x80000000u) { return ~bits; }
  return (bits & 0x7fffffffu) | 0x80000000u;
}

fn value_of(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank ^ 0x80000000u, rank >= 0x80000000u));
}
