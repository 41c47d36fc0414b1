// Has offline.js cache a site, so that a page visited before opens without its server.

const LOOPBACK = ["localhost", "127.0.0.1", "[::1]"];
// Fetched by scripts, which cache their data themselves.
const DATA = ["fetch", "xmlhttprequest", "beacon", "audio", "video"];

/**
 * Cache this page, its files and what Python starts from. Call it when the page is ready, for
 * a first visit fetches everything once more, usually from the browser's own cache.
 * @param {string} pyodideUrl where Pyodide lies, on this site
 * @param {string[]} [files] what the page itself does not load, beside this file: its worker's modules
 * @returns {Promise<boolean>} whether all of it is cached; it never throws
 */
export async function keepOffline(pyodideUrl, files = []) {
  if (!isSecureContext || !("serviceWorker" in navigator)) {
    console.debug("Not stored for offline use: no service workers here, or the page is not secure.");
    return false;
  }
  const script = new URL("./offline.js", import.meta.url);
  script.searchParams.set("pyodide", new URL(pyodideUrl, location.href).pathname);
  // A local server that is down fails at once; a slow one is building something.
  if (LOOPBACK.includes(location.hostname)) script.searchParams.set("patience", "60000");
  try {
    const { installing, waiting, active } = await navigator.serviceWorker.register(script);
    const urls = [location.href, ...files.map((file) => new URL(file, import.meta.url).href)];
    for (const entry of performance.getEntriesByType("resource")) {
      const { name, initiatorType, responseStatus } = /** @type {PerformanceResourceTiming} */ (entry);
      const succeeded = responseStatus === undefined || (responseStatus > 0 && responseStatus < 400);
      if (succeeded && name !== script.href && !DATA.includes(initiatorType)) urls.push(name);
    }
    const { port1, port2 } = new MessageChannel();
    (installing ?? waiting ?? active)?.postMessage({ type: "keep", urls }, [port2]);
    return await new Promise((resolve) => (port1.onmessage = ({ data }) => resolve(data)));
  } catch (error) {
    console.debug(`Not stored for offline use: ${error}`);
    return false;
  }
}
