// packed_half: words of blocks that may start in the middle of one.
fn word_at(first: u32, second: u32, odd: bool) -> u32 {
  return select((first >> 16u) | (second << 16u), second, odd);
}
