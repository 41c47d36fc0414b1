// token_embedding: gather table rows by the tokens that stand in a state.
//   y[t,c] = table[tokens[(position + t) % slots],c]
// A lane owns one element. A token past the table takes its last row.
// Slots: none.   Launch: flat over rows * cols.   Reference: token_embedding.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, cols: u32, slots: u32, vocabulary: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> table: array<f32>;      // (vocabulary, cols)
@group(0) @binding(3) var<storage, read> tokens: array<u32>;     // (slots)
@group(0) @binding(4) var<storage, read> position: array<u32>;   // (1)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;    // (rows, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.rows * params.cols) { return; }
  let slot = (position[0] + index / params.cols) % params.slots;
  let token = min(tokens[slot], params.vocabulary - 1u);
  y[index] = table[token * params.cols + index % params.cols];
}
