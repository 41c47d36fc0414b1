// rank: whole numbers in the order of the floats whose bits they are. -0 ranks as 0, a NaN as 0u,
// below -inf.
fn rank_of(bits: u32) -> u32 {
  if ((bits & 0x7fffffffu) > 0x7f800000u) { return 0u; }
  if (bits > 0x80000000u) { return ~bits; }
  return (bits & 0x7fffffffu) | 0x80000000u;
}
