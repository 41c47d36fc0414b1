// A model's text as markdown. It is as untrusted as anything typed by a visitor: HTML in it stays text, what
// markdown makes passes a sanitizer that lets only a few elements through, and pictures become links.

/** @typedef {typeof import("marked")} Marked */
/** @typedef {import("dompurify").DOMPurify} Purify */

const TAGS = [
  ...["p", "br", "hr", "strong", "em", "del", "code", "pre", "blockquote", "a"],
  ...["ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"],
];
const SCHEMES = /^(?:https?:|mailto:)/i;

/** @type {((text: string) => DocumentFragment) | null} */
let render = null;

/** Fetch the libraries. Until then, or if they cannot be fetched, text is shown unchanged. */
export async function loadMarkdown() {
  const from = (/** @type {string} */ name) => import(new URL(`./vendor/${name}.js`, import.meta.url).href);
  /** @type {[Marked, { default: Purify }]} */
  const [{ Marked }, { default: purify }] = await Promise.all([from("marked"), from("purify")]);
  const marked = new Marked({ gfm: true, breaks: true });
  marked.use({
    renderer: {
      html: ({ text }) => escaped(text),
      image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
      heading({ tokens }) {
        return `<p><strong>${this.parser.parseInline(tokens)}</strong></p>`; // the page has its own headings
      },
      checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    },
  });
  render = (text) => {
    const html = marked.parse(text, { async: false });
    const clean = purify.sanitize(html, {
      ALLOWED_TAGS: TAGS,
      ALLOWED_ATTR: ["href", "start"],
      ALLOWED_URI_REGEXP: SCHEMES,
      ALLOW_ARIA_ATTR: false,
      ALLOW_DATA_ATTR: false,
      RETURN_DOM_FRAGMENT: true,
    });
    for (const link of clean.querySelectorAll("a")) {
      link.target = "_blank";
      link.rel = "noopener noreferrer";
    }
    return clean;
  };
}

/** @param {string} text */
function escaped(text) {
  const codes = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (character) => codes[/** @type {keyof codes} */ (character)]);
}

/** Show a text in an element, as markdown if the libraries are loaded. @param {HTMLElement} body @param {string} text */
export function showMarkdown(body, text) {
  body.classList.toggle("plain-text", !render);
  body.replaceChildren(render ? render(text) : text);
}
