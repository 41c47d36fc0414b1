// reduce: combine mapped elements over some axes, in two steps.
//   y[o] = finish(combine over r of map(x[offset(o) + offset(r)]))
// bascule_main: one workgroup a chunk of the elements of one output; it leaves a partial result.
// bascule_last: one workgroup an output; it combines the partial results and finishes.
// The generated part declares the bindings and types, and bascule_map, bascule_combine,
// bascule_identity, bascule_finish.   Slots: none.
// Launch: outputs x chunks, then outputs, folded into y and z.   Reference: numpy.sum.

override WORKGROUP: u32 = 64u;

struct BasculeChunks { outputs: u32, chunks: u32, chunk: u32, n: u32 }   // chunk, n: elements

@group(0) @binding(1) var<uniform> bascule_chunks: BasculeChunks;

var<workgroup> bascule_lanes: array<BasculeType, WORKGROUP>;

// All lanes' values combined, in lane 0; every lane of the workgroup must call it.
fn bascule_gather(lane: u32, value: BasculeType) -> BasculeType {
  bascule_lanes[lane] = value;
  for (var n = WORKGROUP; n > 1u; n = (n + 1u) / 2u) {
    workgroupBarrier();   // the lanes' values of the step before are there
    let half = (n + 1u) / 2u;
    if (lane + half < n) {
      bascule_lanes[lane] = bascule_combine(bascule_lanes[lane], bascule_lanes[lane + half]);
    }
  }
  workgroupBarrier();
  return bascule_lanes[0];
}

@compute @workgroup_size(WORKGROUP)
fn bascule_main(
  @builtin(workgroup_id) id: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let group = bascule_flat(id, groups, 1u);
  let output = group / bascule_chunks.chunks;
  let start = (group % bascule_chunks.chunks) * bascule_chunks.chunk;
  let end = min(start + bascule_chunks.chunk, bascule_index[1].n);
  var value = bascule_identity();
  if (output < bascule_chunks.outputs) {
    for (var r = start + lane; r < end; r += WORKGROUP) {
      value = bascule_combine(value, bascule_element(output, r));
    }
  }
  let found = bascule_gather(lane, value);
  if (lane == 0u && output < bascule_chunks.outputs) {
    bascule_partial[group] = found;
  }
}

@compute @workgroup_size(WORKGROUP)
fn bascule_last(
  @builtin(workgroup_id) id: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  let output = bascule_flat(id, groups, 1u);
  var value = bascule_identity();
  if (output < bascule_chunks.outputs) {
    for (var c = lane; c < bascule_chunks.chunks; c += WORKGROUP) {
      value = bascule_combine(value, bascule_partial[output * bascule_chunks.chunks + c]);
    }
  }
  let found = bascule_gather(lane, value);
  if (lane == 0u && output < bascule_chunks.outputs) {
    bascule_store(output, bascule_finish(found, bascule_chunks.n));
  }
}
