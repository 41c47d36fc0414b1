// array_elementwise: y[i] = element(i), a fused chain of elementwise operations on arrays.
// A lane owns one element. `Params`, the bindings and `element` are generated from the rows of
// the op table (py/bascule/array/generated.py); every array holds 32-bit words.
// Slots: element.   Launch: flat over n.   Reference: the numpy functions of the rows.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  y[index] = stored(element(index, 0u));
}
