// The load of the processor, by the Compute Pressure API (W3C, compute-pressure). It imports
// nothing (see gpu.js).

/**
 * Types that TypeScript's DOM library does not have yet.
 * @typedef {{ state: string }} PressureRecord
 * @typedef {{ observe(source: string, options: { sampleInterval: number }): Promise<void>,
 *   disconnect(): void }} Observer
 * @typedef {{ new (changed: (records: PressureRecord[]) => void): Observer,
 *   knownSources?: readonly string[] }} ObserverClass
 */

/** The last reported state: "nominal", "fair", "serious" or "critical". */
export class Pressure {
  state = "nominal";
  #observer;

  /** @param {ObserverClass} Observer */
  constructor(Observer) {
    this.#observer = new Observer((records) => {
      this.state = records.at(-1)?.state ?? this.state;
    });
  }

  /** @param {number} intervalMs */
  observe(intervalMs) {
    return this.#observer.observe("cpu", { sampleInterval: intervalMs });
  }

  close() {
    this.#observer.disconnect();
  }
}

/** Null where the browser does not have it, or a policy forbids it.
 * @param {number} intervalMs @returns {Promise<Pressure | null>} */
export async function watchPressure(intervalMs) {
  /** @type {ObserverClass | undefined} */
  const Observer = Reflect.get(globalThis, "PressureObserver");
  if (!Observer?.knownSources?.includes("cpu")) return null;
  const pressure = new Pressure(Observer);
  try {
    await pressure.observe(intervalMs);
  } catch {
    return null;
  }
  return pressure;
}
