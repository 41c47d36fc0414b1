// array_best: y[i, c] = the r at which element(i, r) is best, over r = c, c + chunks, ...
// A lane owns one chunk of one output. With `again` the candidates are those that an earlier pass
// has found, `extent` of them an output. The first NaN is best, of equal elements the first.
// `Params`, the bindings, `element`, `better` and `candidate` are generated.
// Slots: element, better.   Launch: flat over n = outputs * chunks.   Reference: argmin, argmax.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let at = index / params.chunks;
  let first = index % params.chunks;
  var best = candidate(at, first);
  var found = element(at, best);
  for (var c = first + params.chunks; c < params.extent; c += params.chunks) {
    let r = candidate(at, c);
    let next = element(at, r);
    if (better(next, found) || (r < best && !better(found, next))) {
      best = r;
      found = next;
    }
  }
  y[index] = best;
}
