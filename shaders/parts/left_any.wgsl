// left_any: four elements of a row of x; zeros past K.
@group(0) @binding(1) var<storage, read> x: array<f32>;   // (batch, M, K)

fn left_at(row: u32, k: u32) -> vec4f {
  let at = row + min(vec4u(k, k + 1u, k + 2u, k + 3u), vec4u(params.inner - 1u));
  let v = vec4f(x[at.x], x[at.y], x[at.z], x[at.w]);
  return select(vec4f(), v, vec4u(k, k + 1u, k + 2u, k + 3u) < vec4u(params.inner));
}
