// token_embedding_blocks: gather rows of a table in blocks by the tokens that stand in a state.
//   y[t,c] = table[tokens[(position + t) % slots],c]
// A lane owns a run of 32 columns. A token past the table takes its last row.
// Slots: weights.   Launch: flat over rows * runs.   Reference: token_embedding.
override WORKGROUP: u32 = 64u;

struct Params { rows: u32, runs: u32, slots: u32, vocabulary: u32 }   // runs: C / 32

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;      // (slots)
@group(0) @binding(4) var<storage, read> position: array<u32>;    // (1)
@group(0) @binding(5) var<storage, read_write> y: array<vec4f>;   // (rows, C / 4)

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
        @builtin(local_invocation_index) lane: u32) {
  let index = (group.y * groups.x + group.x) * WORKGROUP + lane;
  if (index >= params.rows * params.runs) { return; }
  let slot = (position[0] + index / params.runs) % params.slots;
  let token = min(tokens[slot], params.vocabulary - 1u);
  let w = weight_run(token, index % params.runs);
  let first = FIRST_UNITS * w.scales.x;
  let last = LAST_UNITS * w.scales.z;
  let at = index * 8u;
  y[at] = w.q0 * first + w.scales.y;
  y[at + 1u] = w.q1 * first + w.scales.y;
  y[at + 2u] = w.q2 * first + w.scales.y;
  y[at + 3u] = w.q3 * first + w.scales.y;
  y[at + 4u] = w.q4 * last + w.scales.w;
  y[at + 5u] = w.q5 * last + w.scales.w;
  y[at + 6u] = w.q6 * last + w.scales.w;
  y[at + 7u] = w.q7 * last + w.scales.w;
}
