// spread_none: every lane reads all of x itself.
fn spread_lane() -> u32 {
  return 0u;
}

// The 32 values from vec4 `at` on.
fn xs_at(at: u32, lane: u32) -> Xs {
  return xs_of(x[at], x[at + 1u], x[at + 2u], x[at + 3u], x[at + 4u], x[at + 5u], x[at + 6u],
               x[at + 7u]);
}
