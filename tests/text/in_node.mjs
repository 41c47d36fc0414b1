// The page's tokenizer in node: JSON in by stdin, JSON out. See page_half.py.

import { readFileSync } from "node:fs";

import { createTokenizer } from "../../web/bridge/text.js";
import * as tokenizers from "../../web/vendor/tokenizers.js";

const asked = JSON.parse(readFileSync(0, "utf8"));

function tokenized({ tokenizer, texts, special, rows, skipSpecial }) {
  const made = createTokenizer(tokenizers, tokenizer, 2 ** 31 - 1);
  if (rows) return made.decodes ? rows.map((ids) => made.decode(JSON.stringify(ids), skipSpecial)) : null;
  const flat = special ? made.encode(JSON.stringify(texts)) : made.encodeBare(JSON.stringify(texts));
  const count = flat[0];
  const ids = [];
  let at = 1 + count;
  for (const length of flat.slice(1, 1 + count)) {
    ids.push(Array.from(flat.slice(at, at + length)));
    at += length;
  }
  return ids;
}

process.stdout.write(JSON.stringify(tokenized(asked)));
