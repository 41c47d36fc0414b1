// index: where an element of a broadcast shape lies in each operand.
//   offset(which, i, o) = sum over d of strides[o][d] * (i's index along axis d)
// Appended to the kernels of bascule.elementwise and bascule.reduce. At most 8 axes, 8 operands.
// A reduction has two shapes: the axes that stay (0) and those that it sums over (1).
// Slots: none.   Launch: as the kernel that it is appended to.
// Reference: numpy.broadcast_to and numpy.ravel_multi_index.

struct BasculeIndex {
  n: u32,                        // elements of the shape
  rank: u32,                     // axes, after those that can be were merged
  shape: array<vec4u, 2>,        // elements along each axis
  strides: array<vec4u, 16>,     // two vectors an operand: elements from one index to the next
}

@group(0) @binding(0) var<uniform> bascule_index: array<BasculeIndex, 2>;

// The place of an invocation in a launch that may be folded into y and z.
fn bascule_flat(id: vec3u, groups: vec3u, lanes: u32) -> u32 {
  return id.x + groups.x * lanes * (id.y + groups.y * id.z);
}

fn bascule_offset(which: u32, i: u32, operand: u32) -> u32 {
  let first = 2u * operand;
  if (bascule_index[which].rank < 2u) {
    return i * bascule_index[which].strides[first].x;
  }
  var rest = i;
  var at = 0u;
  for (var d = bascule_index[which].rank; d > 0u; d--) {
    let axis = d - 1u;
    let size = bascule_index[which].shape[axis / 4u][axis % 4u];
    at += (rest % size) * bascule_index[which].strides[first + axis / 4u][axis % 4u];
    rest /= size;
  }
  return at;
}
