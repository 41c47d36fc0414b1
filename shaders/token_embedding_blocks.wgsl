// token_embedding_blocks: gather rows of a table in blocks by the tokens of a state.
//   y[t,c] = table[tokens[(position + t) % slots],c]
// A lane owns a run of 32 columns. A token past the table takes its last row. Here are rows
// `first` on of a table of `whole` rows; elsewhere y is what `before` has.
// Slots: weights, before.   Launch: flat over tokens * runs.   Reference: token_embedding.
override WORKGROUP: u32 = 64u;

// runs: C / 32
struct Params { tokens: u32, runs: u32, slots: u32, first: u32, rows: u32, whole: u32 }

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;      // (slots)
@group(0) @binding(4) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(6) var<storage, read_write> y: array<vec4f>;   // (tokens, C / 4)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.tokens * params.runs) { return; }
  let slot = (position[0] + index / params.runs) % params.slots;
  let at = index * 8u;
  // A row of an earlier part is past all rows.
  let id = min(tokens[slot], params.whole - 1u) - params.first;
  if (id >= params.rows) {
    for (var i = 4u * at; i < 4u * at + 32u; i += 4u) {
      y[i / 4u] = vec4f(before_at(i), before_at(i + 1u), before_at(i + 2u), before_at(i + 3u));
    }
    return;
  }
  let w = weight_run(id, index % params.runs);
  let first = FIRST_UNITS * w.scales.x;
  let last = LAST_UNITS * w.scales.z;
  y[at] = w.q0 * first + w.scales.y;
  y[at + 1u] = w.q1 * first + w.scales.y;
  y[at + 2u] = w.q2 * first + w.scales.y;
  y[at + 3u] = w.q3 * first + w.scales.y;
  y[at + 4u] = w.q4 * last + w.scales.w;
  y[at + 5u] = w.q5 * last + w.scales.w;
  y[at + 6u] = w.q6 * last + w.scales.w;
  y[at + 7u] = w.q7 * last + w.scales.w;
}
