// embedding: gather table rows by token id, add position and bias.
//   y[b,t,c] = table[ids[b,t],c] + position[t,c] + bias[c]
// A lane owns one element. An id past the table takes its last row.
// Slots: position, row_bias.   Launch: flat over batch * tokens * cols.   Reference: embedding.
override WORKGROUP: u32 = 64u;

struct Params { batch: u32, tokens: u32, cols: u32, vocabulary: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;       // (batch, tokens)
@group(0) @binding(2) var<storage, read> table: array<f32>;     // (vocabulary, cols)
@group(0) @binding(5) var<storage, read_write> y: array<f32>;   // (batch, tokens, cols)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.batch * params.tokens * params.cols) { return; }
  let row = index / params.cols;
  let col = index % params.cols;
  let id = min(ids[row], params.vocabulary - 1u);
  let token = row % params.tokens;
  y[index] = table[id * params.cols + col] + position_at(token * params.cols + col)
    + row_bias_at(col);
}
