// token_embedding: gather table rows by the tokens of a state.
//   y[t,c] = table[tokens[(position + t) % slots],c]
// A lane owns one element. A token past the table takes its last row. Here are rows `first` on of a
// table of `whole` rows; elsewhere y is what `before` has.
// Slots: before.   Launch: flat over tokens * cols.   Reference: token_embedding.
override WORKGROUP: u32 = 64u;

struct Params { tokens: u32, cols: u32, slots: u32, first: u32, rows: u32, whole: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> table: array<f32>;      // (rows, cols)
@group(0) @binding(3) var<storage, read> tokens: array<u32>;     // (slots)
@group(0) @binding(4) var<storage, read> position: array<u32>;   // (1)
@group(0) @binding(6) var<storage, read_write> y: array<f32>;    // (tokens, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.tokens * params.cols) { return; }
  let slot = (position[0] + index / params.cols) % params.slots;
  // A row of an earlier part is past all rows.
  let id = min(tokens[slot], params.whole - 1u) - params.first;
  var value = before_at(index);
  if (id < params.rows) { value = table[id * params.cols + index % params.cols]; }
  y[index] = value;
}
