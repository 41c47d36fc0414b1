// random: a number in [0, 1) for a seed and a position: pcg2d of Jarzynski & Olano 2020, "Hash
// Functions for GPU Rendering". Its high 24 bits are a float without rounding.
fn uniform_at(seed: u32, at: u32) -> f32 {
  var v = vec2u(seed, at) * 1664525u + 1013904223u;
  for (var i = 0u; i < 2u; i++) {
    v.x += v.y * 1664525u;
    v.y += v.x * 1664525u;
    v ^= v >> vec2u(16u);
  }
  return f32(v.x >> 8u) / 16777216.0;
}
