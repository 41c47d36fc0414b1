// embedding: gather table rows by token id, add position and bias.
//   y[b,t,c] = table[ids[b,t],c] + position[t,c] + bias[c]
// A lane owns one element. An id past the table takes its last row. Here are rows `first` on of a
// table of `whole` rows; elsewhere y is what `before` has.
// Slots: position, row_bias, before.   Launch: flat over batch * tokens * cols.
// Reference: embedding.
override WORKGROUP: u32 = 64u;

struct Params { batch: u32, tokens: u32, cols: u32, first: u32, rows: u32, whole: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;       // (batch, tokens)
@group(0) @binding(2) var<storage, read> table: array<f32>;     // (rows, cols)
@group(0) @binding(6) var<storage, read_write> y: array<f32>;   // (batch, tokens, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.batch * params.tokens * params.cols) { return; }
  let row = index / params.cols;
  let col = index % params.cols;
  // A row of an earlier part is past all rows.
  let id = min(ids[row], params.whole - 1u) - params.first;
  let token = row % params.tokens;
  var value = before_at(index);
  if (id < params.rows) { value = table[id * params.cols + col]; }
  y[index] = value + position_at(token * params.cols + col) + row_bias_at(col);
}
