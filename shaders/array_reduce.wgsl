// array_reduce: y[i, c] = combine of element(i, r) over the r of chunk c, r below `extent`.
// A lane owns one chunk of one output, every chunks-th four elements and every chunks-th of the
// rest; a second pass with chunks = 1 reduces the chunks. Four elements side by side are combined
// first, which is 1.5 to 2 times as fast on software adapters. `Params`, the bindings, `element`,
// `identity` and `combine` are generated (py/bascule/array/generated.py).
// Slots: element, combine.   Launch: flat over n = outputs * chunks.   Reference: numpy.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let at = index / params.chunks;
  let chunk = index % params.chunks;
  let fours = params.extent / 4u;
  var total = identity();
  for (var q = chunk; q < fours; q += params.chunks) {
    let r = 4u * q;
    let first = combine(element(at, r), element(at, r + 1u));
    total = combine(total, combine(first, combine(element(at, r + 2u), element(at, r + 3u))));
  }
  for (var r = 4u * fours + chunk; r < params.extent; r += params.chunks) {
    total = combine(total, element(at, r));
  }
  y[index] = stored(total);
}
