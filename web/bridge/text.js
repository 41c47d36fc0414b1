// Tokenization in the page, by @huggingface/tokenizers. It imports nothing (see gpu.js): the
// library's module is handed in.

/**
 * @typedef {{ ids: number[] }} Encoding
 * @typedef {{ encode(text: string, options?: { add_special_tokens?: boolean }): Encoding }} Library
 * @typedef {{ Tokenizer: new (tokenizer: object, config: object) => Library }} LibraryModule
 */

/** Encodes many texts in one crossing. */
export class PageTokenizer {
  #library;
  #mostTokens;

  /** @param {Library} library @param {number} mostTokens */
  constructor(library, mostTokens) {
    this.#library = library;
    this.#mostTokens = mostTokens;
  }

  /** Texts as a JSON list; the answer holds n, n lengths, then all ids. @param {string} texts */
  encode(texts) {
    const all = JSON.parse(texts).map((/** @type {string} */ text) => this.#encodeOne(text));
    const flat = [all.length, ...all.map((/** @type {number[]} */ ids) => ids.length)];
    return Int32Array.from(flat.concat(...all));
  }

  /** @param {string} text */
  #encodeOne(text) {
    const { ids } = this.#library.encode(text);
    if (ids.length <= this.#mostTokens) return ids;
    // Cut like the native library: the text's tokens from the right, the special ones kept.
    const bare = this.#library.encode(text, { add_special_tokens: false }).ids;
    let before = 0;
    while (before + bare.length < ids.length && ids[before] !== bare[0]) before += 1;
    const after = ids.slice(before + bare.length);
    const kept = Math.max(0, this.#mostTokens - before - after.length);
    return [...ids.slice(0, before + kept), ...after];
  }
}

/**
 * @param {LibraryModule} module @param {string} json tokenizer.json @param {number} mostTokens
 */
export function createTokenizer(module, json, mostTokens) {
  return new PageTokenizer(new module.Tokenizer(JSON.parse(json), {}), mostTokens);
}
