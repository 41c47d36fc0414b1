// array_reduce: y[i, c] = combine over r = c, c + chunks, ... of element(i, r), r below `extent`.
// A lane owns one chunk of one output; a second pass with chunks = 1 reduces the chunks. Lanes
// side by side read elements side by side. `Params`, the bindings, `element`, `identity` and
// `combine` are generated (py/bascule/array/generated.py).
// Slots: element, combine.   Launch: flat over n = outputs * chunks.   Reference: numpy.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let at = index / params.chunks;
  var total = identity();
  for (var r = index % params.chunks; r < params.extent; r += params.chunks) {
    total = combine(total, element(at, r));
  }
  y[index] = stored(total);
}
