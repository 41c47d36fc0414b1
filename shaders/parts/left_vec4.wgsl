// left_vec4: four elements of a row of x. K is a multiple of 4.
@group(0) @binding(1) var<storage, read> x: array<vec4f>;   // (batch, M, K / 4)

fn left_at(row: u32, k: u32) -> vec4f {
  return x[(row + k) / 4u];
}
