// array_sort_three: three steps of array_sort at once, of strides 4, 2 and 1 times `stride`.
// A lane owns the eight pairs that these steps exchange among themselves, `stride` apart: they are
// read and written once. All eight lie in one run, so they are sorted in one direction.
// Slots: none.   Launch: flat over n = rows * padded / 8.   Source: Batcher 1968.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, eighth: u32, run: u32, stride: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;     // (rows, padded)
@group(0) @binding(2) var<storage, read_write> order: array<u32>;    // (rows, padded)

fn pair_at(index: u32) -> vec2u {
  return vec2u(keys[index], order[index]);
}

fn keep(index: u32, pair: vec2u) {
  keys[index] = pair.x;
  order[index] = pair.y;
}

// The pairs in the order that they are to have.
fn exchanged(a: vec2u, b: vec2u, ascending: bool) -> vec4u {
  let later = a.x > b.x || (a.x == b.x && a.y > b.y);
  return select(vec4u(a, b), vec4u(b, a), later == ascending);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let s = params.stride;
  let inside = index % params.eighth;
  let low = 8u * inside - 7u * (inside & (s - 1u));  // leaves out the bits of the three strides
  let at = 8u * (index - inside) + low;
  let up = (low & params.run) == 0u;
  // By four strides: 0 with 4, 1 with 5, 2 with 6, 3 with 7.
  let a04 = exchanged(pair_at(at), pair_at(at + 4u * s), up);
  let a15 = exchanged(pair_at(at + s), pair_at(at + 5u * s), up);
  let a26 = exchanged(pair_at(at + 2u * s), pair_at(at + 6u * s), up);
  let a37 = exchanged(pair_at(at + 3u * s), pair_at(at + 7u * s), up);
  // By two: 0 with 2, 1 with 3, 4 with 6, 5 with 7.
  let b02 = exchanged(a04.xy, a26.xy, up);
  let b13 = exchanged(a15.xy, a37.xy, up);
  let b46 = exchanged(a04.zw, a26.zw, up);
  let b57 = exchanged(a15.zw, a37.zw, up);
  // By one.
  let c01 = exchanged(b02.xy, b13.xy, up);
  let c23 = exchanged(b02.zw, b13.zw, up);
  let c45 = exchanged(b46.xy, b57.xy, up);
  let c67 = exchanged(b46.zw, b57.zw, up);
  keep(at, c01.xy);
  keep(at + s, c01.zw);
  keep(at + 2u * s, c23.xy);
  keep(at + 3u * s, c23.zw);
  keep(at + 4u * s, c45.xy);
  keep(at + 5u * s, c45.zw);
  keep(at + 6u * s, c67.xy);
  keep(at + 7u * s, c67.zw);
}
