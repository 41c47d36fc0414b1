// array_elementwise: y[i] = element(i), a fused chain of elementwise operations on arrays, or a
// reduction of few such elements each.
// A lane owns four elements side by side and writes them at once: one store for four is 2 to 4
// times as fast on software adapters. Elements past n are computed and lie in y's padding.
// `Params`, the bindings and `element` are generated from the rows of the op table
// (py/bascule/array/generated.py); every array holds 32-bit words.
// Slots: element.   Launch: flat over n / 4.   Reference: the numpy functions of the rows.
override WORKGROUP: u32 = 64u;

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index > (params.n - 1u) / 4u) { return; }
  let i = 4u * index;
  y[index] = vec4u(stored(element(i, 0u)), stored(element(i + 1u, 0u)),
                   stored(element(i + 2u, 0u)), stored(element(i + 3u, 0u)));
}
