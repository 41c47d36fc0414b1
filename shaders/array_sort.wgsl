// array_sort: one step of a bitonic sort of (key, index) pairs, row by row of a power of two.
// A lane compares two pairs `stride` apart and leaves the smaller one first, in runs of `run` that
// ascend and descend by turns. Equal keys stay in the order of their indices: the sort is stable.
// Slots: none.   Launch: flat over n = rows * padded / 2.   Source: Batcher 1968.
override WORKGROUP: u32 = 64u;

struct Params { n: u32, half: u32, run: u32, stride: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> keys: array<u32>;     // (rows, padded)
@group(0) @binding(2) var<storage, read_write> order: array<u32>;    // (rows, padded)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.n) { return; }
  let pair = index % params.half;
  let low = 2u * pair - (pair & (params.stride - 1u));  // leaves out the bit of the stride
  let base = 2u * (index - pair);
  let a = base + low;
  let b = a + params.stride;
  let ka = keys[a];
  let kb = keys[b];
  let ia = order[a];
  let ib = order[b];
  let swapped = ka > kb || (ka == kb && ia > ib);
  if (swapped == ((low & params.run) == 0u)) {
    keys[a] = kb;
    keys[b] = ka;
    order[a] = ib;
    order[b] = ia;
  }
}
