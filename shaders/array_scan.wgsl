// array_scan: y[i, r] = combine of element(i, 0) to element(i, r), a running sum or product.
// A lane owns a block of `span` elements of a row. It starts from the total of the blocks before
// it, which an earlier pass has left in `starts`, or from the identity. With `totals` it writes
// only its block's total. `Params`, bindings, `element`, `identity` and `combine` are generated.
// Slots: element, combine.   Launch: flat over n = rows * blocks.   Reference: cumulative_sum.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let row = index / params.blocks;
  let block = index % params.blocks;
  var total = identity();
  if (params.totals == 0u && block > 0u) { total = start(index - 1u); }
  let end = min((block + 1u) * params.span, params.extent);
  for (var r = block * params.span; r < end; r++) {
    total = combine(total, element(row, r));
    if (params.totals == 0u) { y[row * params.extent + r] = stored(total); }
  }
  if (params.totals == 1u) { y[index] = bits(total); }
}
