// key_count_none: all keys of a text count.
fn key_count(batch: u32) -> u32 {
  return params.keys;
}
