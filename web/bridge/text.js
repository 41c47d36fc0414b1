// Tokenization in the page, by @huggingface/tokenizers. It imports nothing (see gpu.js): the
// library's module is an argument.

/**
 * @typedef {{ ids: number[] }} Encoding
 * @typedef {{
 *   encode(text: string, options?: { add_special_tokens?: boolean }): Encoding,
 *   decode(ids: number[], options: { skip_special_tokens: boolean, clean_up_tokenization_spaces: boolean }): string,
 *   id_to_token(id: number): string | undefined,
 *   model: object | null,
 * }} Library
 * @typedef {{ bpe(word: string): string[], tokens_to_ids: Map<string, number>, unk_token?: string | null,
 *   byte_fallback: boolean, end_of_word_suffix?: string | null }} Bpe
 * @typedef {{ Tokenizer: new (tokenizer: object, config: object) => Library }} LibraryModule
 * @typedef {{ type?: string, lowercase?: boolean, handle_chinese_chars?: boolean,
 *   normalizers?: Normalizer[] }} Normalizer
 */

/** In characters; larger tokenizers are checked on each visit. */
const MAX_KEPT = 8 << 20;
// Han beyond the Basic Multilingual Plane: BERT's normalizer (Devlin et al. 2019) puts spaces around
// every such character; the library does so for the Basic Multilingual Plane alone.
const RARE_HAN =
  /[\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b820}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
// JavaScript lowercases the last capital sigma of a word to another letter than Rust does.
const CAPITAL_SIGMA = /\u03a3/g;

/** Encodes many texts in one crossing. */
export class PageTokenizer {
  #library;
  #maxTokens;
  #spacesHan;
  #lowercases;

  /** @param {Library} library @param {number} maxTokens @param {Normalizer | null} normalizer
   * @param {boolean} decodes whether its file has a decoder */
  constructor(library, maxTokens, normalizer, decodes) {
    this.#library = library;
    this.decodes = decodes;
    this.#maxTokens = maxTokens;
    this.#spacesHan = normalizer?.handle_chinese_chars === true;
    this.#lowercases = lowercases(normalizer);
  }

  /** Encode a JSON list of texts: n, n lengths, then all ids. @param {string} texts */
  encode(texts) {
    return flattened(JSON.parse(texts).map((/** @type {string} */ text) => this.#encodeOne(text)));
  }

  /** As `encode`, without special tokens and not truncated. @param {string} texts */
  encodeBare(texts) {
    const bare = (/** @type {string} */ text) =>
      this.#library.encode(this.#normalized(text), { add_special_tokens: false }).ids;
    return flattened(JSON.parse(texts).map(bare));
  }

  /** The tokens of each text of a JSON list before it is truncated. @param {string} texts */
  count(texts) {
    const all = JSON.parse(texts);
    return Int32Array.from(all, (text) => this.#library.encode(this.#normalized(text)).ids.length);
  }

  /** The text of a JSON list of token ids; those without a token have none.
   * @param {string} ids @param {boolean} skipSpecial */
  decode(ids, skipSpecial) {
    const known = JSON.parse(ids).filter((/** @type {number} */ id) => this.#library.id_to_token(id) !== undefined);
    if (!known.length) return ""; // the library rejects an empty list
    return this.#library.decode(known, { skip_special_tokens: skipSpecial, clean_up_tokenization_spaces: false });
  }

  /** @param {string} text */
  #normalized(text) {
    const lower = this.#lowercases ? text.replace(CAPITAL_SIGMA, "\u03c3") : text;
    return this.#spacesHan ? lower.replace(RARE_HAN, " $& ") : lower;
  }

  /** @param {string} original */
  #encodeOne(original) {
    const text = this.#normalized(original);
    const { ids } = this.#library.encode(text);
    if (ids.length <= this.#maxTokens) return ids;
    // Truncated like the native library: from the right of the text, special tokens stay.
    const bare = this.#library.encode(text, { add_special_tokens: false }).ids;
    let before = 0;
    // All of it is compared: the text may itself begin with the template's tokens.
    const begins = (/** @type {number} */ at) => bare.every((id, i) => ids[at + i] === id);
    while (before + bare.length < ids.length && !begins(before)) before += 1;
    const after = ids.slice(before + bare.length);
    const count = Math.max(0, this.#maxTokens - before - after.length);
    return [...ids.slice(0, before + count), ...after];
  }
}

/** @param {Normalizer | null | undefined} step @returns {boolean} */
function lowercases(step) {
  return step?.type === "Lowercase" || step?.lowercase === true || (step?.normalizers ?? []).some(lowercases);
}

/** The number of rows, their lengths, then all of them. @param {number[][]} rows */
function flattened(rows) {
  const flat = [rows.length, ...rows.map((ids) => ids.length)];
  // Not `...rows`: a hundred thousand texts would be too many arguments for one call.
  return Int32Array.from(flat.concat(rows.flat()));
}

/**
 * Store a tokenizer.json that Python has checked, under the URL of its folder: early.js creates it on the
 * next visit. Never rejects.
 * @param {typeof import("./remembered.js")} remembering
 * @param {import("./remembered.js").Library} library @param {string} folder
 * @param {string} entry what `createChecked` reads, as JSON: the key of the file that was checked, its
 *   numbers of tokens, the templates of rows (Python's own), and the checked file
 */
export async function keepChecked(remembering, library, folder, entry) {
  if (entry.length > MAX_KEPT) return;
  const remembered = await remembering.openRemembered(library);
  await remembered.put(`tokenizer ${folder}`, entry);
  remembered.close();
}

/**
 * The tokenizer of what `keepChecked` has stored of a folder, not yet used; null where there is nothing
 * valid.
 * @param {() => Promise<LibraryModule>} library
 * @param {{ get(key: string): Promise<string> }} remembered @param {string} folder
 */
export async function createChecked(library, remembered, folder) {
  const record = JSON.parse((await remembered.get(`tokenizer ${folder}`)) || "{}");
  const { key, nTokens, nAdded, maxTokens, json } = record;
  const templates = JSON.stringify(record.templates);
  const counts = [nTokens, nAdded, maxTokens].every((count) => Number.isSafeInteger(count) && count >= 0);
  const texts = [key, templates, json].every((text) => typeof text === "string");
  if (!counts || !texts) return null;
  const tokenizer = createTokenizer(await library(), json, maxTokens);
  return { key, nTokens, nAdded, templates, tokenizer, taken: false };
}

/**
 * @param {LibraryModule} module @param {string} json tokenizer.json @param {number} maxTokens
 */
export function createTokenizer(module, json, maxTokens) {
  const parsed = JSON.parse(json);
  const library = new module.Tokenizer(parsed, {});
  if (library.model && "bpe" in library.model) dropUnknown(/** @type {Bpe} */ (library.model));
  return new PageTokenizer(library, maxTokens, parsed?.normalizer ?? null, Boolean(parsed?.decoder));
}

/**
 * Drop characters without a token before words are merged, as the native library does where nothing
 * stands for them. This one drops them afterwards: what surrounds them would not be merged.
 * @param {Bpe} model
 */
function dropUnknown(model) {
  const { tokens_to_ids: ids, unk_token: unknown, byte_fallback, end_of_word_suffix: suffix } = model;
  if (unknown != null || byte_fallback || suffix) return;
  const merge = model.bpe.bind(model);
  model.bpe = (word) => merge([...word].filter((character) => ids.has(character)).join(""));
}
