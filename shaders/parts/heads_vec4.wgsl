// heads_vec4: a head's vector as whole vec4s; D is a multiple of 4.
@group(0) @binding(1) var<storage, read> qkv: array<vec4f>;   // (batch, tokens, 3 * kept * D / 4)

// Elements 4i to 4i+3 of the vector that starts at element `start`.
fn head_at(start: u32, i: u32) -> vec4f {
  return qkv[start / 4u + i];
}
