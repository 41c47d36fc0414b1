// Small helpers around the page's elements.

/** The element of that id and kind. @template {HTMLElement} T
 * @param {string} id @param {new () => T} kind @returns {T} */
export function part(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`The page lacks its #${id}.`);
  return element;
}

/** Set the text of an element. @param {string} id @param {string} text */
export function show(id, text) {
  part(id, HTMLElement).textContent = text;
}

/** An element with a class and children. @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {string} className @param {...(Node | string)} children */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

/** A button without emphasis. @param {string} text @param {() => void} pressed */
export function plainButton(text, pressed) {
  const button = make("button", "plain", text);
  button.type = "button";
  button.addEventListener("click", pressed);
  return button;
}

/** Move the focus to `home` if the element that had it was hidden or disabled: it falls to the body.
 * @param {Element | null} focused before the change @param {HTMLElement} home */
export function rescueFocus(focused, home) {
  if (focused?.closest("[hidden]") || focused?.matches(":disabled")) home.focus();
}

/** "1 sentence", "2,000 sentences". @param {number} n @param {string} one @param {string} [many] */
export function count(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

/** @param {number} nbytes */
export function megabytes(nbytes) {
  return `${(nbytes / 1e6).toFixed(1)} MB`;
}
