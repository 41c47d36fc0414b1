// position_none: no position table.
fn position_at(index: u32) -> f32 {
  return 0.0;
}
