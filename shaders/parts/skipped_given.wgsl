// skipped_given: how many tokens of each text do not count, those of a prompt.
@group(0) @binding(3) var<storage, read> skipped_tokens: array<u32>;   // (batch)

fn skipped_at(batch: u32) -> u32 {
  return skipped_tokens[batch];
}
