// key_count_given: how many keys of each text count.
@group(0) @binding(4) var<storage, read> lengths: array<u32>;   // (batch)

fn key_count(batch: u32) -> u32 {
  return lengths[batch];
}
