// half_blocks: blocks of an f16 and DATA_WORDS words, every other of which starts inside a word.
// The word between a pair's blocks keeps the half that is not written: a pair may be cut in two.
const BLOCKS_A_LANE = 2u;

fn put_block(block: u32, scale: u32, data: array<u32, DATA_WORDS>) {
  var words = data;
  let pair = (block / 2u) * (2u * DATA_WORDS + 1u);
  let middle = pair + DATA_WORDS;
  if ((block & 1u) == 1u) {
    blocks[middle] = (blocks[middle] & 0xffffu) | (scale << 16u);
    for (var i = 0u; i < DATA_WORDS; i++) { blocks[middle + 1u + i] = words[i]; }
    return;
  }
  var carry = scale;
  for (var i = 0u; i < DATA_WORDS; i++) {
    blocks[pair + i] = carry | (words[i] << 16u);
    carry = words[i] >> 16u;
  }
  blocks[middle] = (blocks[middle] & 0xffff0000u) | carry;
}
