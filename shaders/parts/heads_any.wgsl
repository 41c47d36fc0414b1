// heads_any: a head's vector element by element, filled up with zeros; any D.
@group(0) @binding(1) var<storage, read> qkv: array<f32>;   // (batch, tokens, 3 * kept * D)

// Elements 4i to 4i+3 of the vector that starts at element `start`.
fn head_at(start: u32, i: u32) -> vec4f {
  var v = vec4f();
  for (var c = 0u; c < 4u && 4u * i + c < HEAD_SIZE; c++) { v[c] = qkv[start + 4u * i + c]; }
  return v;
}
