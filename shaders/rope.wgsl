// rope: rotate the heads of tokens by the angles of their positions.
//   (y[i], y[i + D/2]) = (x[i], x[i + D/2]) * (cos[p,i] + i sin[p,i]) as complex numbers
// A token's position is its place in its text; places past the table take its last row. A lane owns
// one pair.
// Slots: none.   Launch: flat over pairs.
// Source: Su et al. 2021.   Reference: rope.
override WORKGROUP: u32 = 64u;

// pairs: batch * tokens * width / 2. width: H * D. half: D / 2. rows: of the table.
struct Params { pairs: u32, tokens: u32, width: u32, half: u32, rows: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;         // (batch, tokens, width)
@group(0) @binding(2) var<storage, read> angles: array<f32>;    // (rows, D): cos, sin
@group(0) @binding(3) var<storage, read_write> y: array<f32>;   // (batch, tokens, width)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.pairs) { return; }
  let row = index / (params.width / 2u);
  let pair = index % params.half;
  let place = min(row % params.tokens, params.rows - 1u);
  let at = index / params.half * 2u * params.half + pair;
  let angle = place * 2u * params.half + pair;
  let cosine = angles[angle];
  let sine = angles[angle + params.half];
  let a = x[at];
  let b = x[at + params.half];
  y[at] = a * cosine - b * sine;
  y[at + params.half] = a * sine + b * cosine;
}
