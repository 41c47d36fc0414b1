// before_given: the rows that the parts of a table before this one have written.
@group(0) @binding(5) var<storage, read> before: array<f32>;   // shaped like y

fn before_at(index: u32) -> f32 {
  return before[index];
}
