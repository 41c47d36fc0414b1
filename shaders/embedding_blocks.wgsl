// embedding_blocks: gather rows of a table in blocks by token id, add position and bias.
//   y[b,t,c] = table[ids[b,t],c] + position[t,c] + bias[c]
// A lane owns a run of 32 columns. An id past the table takes its last row. Here are rows
// `first` on of a table of `whole` rows; elsewhere y is what `before` has.
// Slots: weights, position, row_bias, before.   Launch: flat over batch * tokens * runs.
// Reference: embedding.
override WORKGROUP: u32 = 64u;

// runs: C / 32
struct Params { batch: u32, tokens: u32, runs: u32, first: u32, rows: u32, whole: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;         // (batch, tokens)
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>;   // (batch, tokens, C / 4)

// Four columns of what is added to the table's row.
fn added_at(position_start: u32, col: u32) -> vec4f {
  let at = position_start + col;
  let added = vec4f(position_at(at), position_at(at + 1u), position_at(at + 2u),
                    position_at(at + 3u));
  return added + vec4f(row_bias_at(col), row_bias_at(col + 1u), row_bias_at(col + 2u),
                       row_bias_at(col + 3u));
}

fn before_vec4(i: u32) -> vec4f {
  return vec4f(before_at(4u * i), before_at(4u * i + 1u), before_at(4u * i + 2u),
               before_at(4u * i + 3u));
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.batch * params.tokens * params.runs) { return; }
  let row = index / params.runs;
  let run = index % params.runs;
  let start = (row % params.tokens) * params.runs * 32u;
  let col = run * 32u;
  let at = index * 8u;
  // A row of an earlier part is past all rows.
  let id = min(ids[row], params.whole - 1u) - params.first;
  if (id >= params.rows) {
    for (var i = 0u; i < 8u; i++) {
      y[at + i] = before_vec4(at + i) + added_at(start, col + 4u * i);
    }
    return;
  }
  let w = weight_run(id, run);
  let first = FIRST_UNITS * w.scales.x;
  let last = LAST_UNITS * w.scales.z;
  y[at] = w.q0 * first + w.scales.y + added_at(start, col);
  y[at + 1u] = w.q1 * first + w.scales.y + added_at(start, col + 4u);
  y[at + 2u] = w.q2 * first + w.scales.y + added_at(start, col + 8u);
  y[at + 3u] = w.q3 * first + w.scales.y + added_at(start, col + 12u);
  y[at + 4u] = w.q4 * last + w.scales.w + added_at(start, col + 16u);
  y[at + 5u] = w.q5 * last + w.scales.w + added_at(start, col + 20u);
  y[at + 6u] = w.q6 * last + w.scales.w + added_at(start, col + 24u);
  y[at + 7u] = w.q7 * last + w.scales.w + added_at(start, col + 28u);
}
