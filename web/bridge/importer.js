// Makes the browser's import() callable from Python, which could reach it only by evaluating a string.
// It serves as a script and as a module, and defines nothing else.

/** @type {any} */ (globalThis).basculeImport ??= (/** @type {string} */ url) => import(url);
