// Gives Python the browser's import(), which no call from Python reaches without evaluating a string.
// It is a script and a module alike, and defines nothing else.

/** @type {any} */ (globalThis).basculeImport ??= (/** @type {string} */ url) => import(url);
