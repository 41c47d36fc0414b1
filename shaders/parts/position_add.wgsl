// position_add: a learned row a position.
@group(0) @binding(3) var<storage, read> position: array<f32>;   // (positions, cols)

fn position_at(index: u32) -> f32 {
  return position[index];
}
