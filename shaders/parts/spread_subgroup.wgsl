// spread_subgroup: the lanes of a subgroup read x once between them and broadcast it: a software
// adapter takes longer to read a word a lane than to broadcast eight. Subgroups have 4 lanes or
// more.
fn spread_lane() -> u32 {
  return subgroupExclusiveAdd(1u) & 3u;   // its number among the lanes, which are all awake
}

// The 32 values from vec4 `at` on.
fn xs_at(at: u32, lane: u32) -> Xs {
  let first = x[at + lane];
  let last = x[at + lane + 4u];
  return xs_of(subgroupBroadcast(first, 0u), subgroupBroadcast(first, 1u),
               subgroupBroadcast(first, 2u), subgroupBroadcast(first, 3u),
               subgroupBroadcast(last, 0u), subgroupBroadcast(last, 1u),
               subgroupBroadcast(last, 2u), subgroupBroadcast(last, 3u));
}
