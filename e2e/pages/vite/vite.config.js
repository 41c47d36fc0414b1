// Vite's defaults, but for where the page will lie and where the package is.
export default {
  base: "/app/",
  resolve: { alias: { bascule: new URL("../../../web", import.meta.url).pathname } },
};
