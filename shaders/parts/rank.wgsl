// rank: whole numbers above 0 in the order of the floats whose bits they are. -0 ranks as 0, a NaN
// above +inf, so that the highest rank shows whether there is one.
const RANK_OF_LOWEST = 0x00800000u;       // the most negative finite float
const RANK_OF_INFINITY = 0xff800000u;
const NOT_A_TOKEN = 0xffffffffu;          // chosen where the highest logit is not finite

fn rank_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0xffffffffu; }
  if (bits > 0x80000000u) { return ~bits; }
  return (bits & 0x7fffffffu) | 0x80000000u;
}

fn is_finite(rank: u32) -> bool {
  return rank >= RANK_OF_LOWEST && rank < RANK_OF_INFINITY;
}

fn value_of(rank: u32) -> f32 {
  return bitcast<f32>(select(~rank, rank ^ 0x80000000u, rank >= 0x80000000u));
}
