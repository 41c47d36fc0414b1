// bench.html's view of each tier: a row of the table, and its details.

import { make } from "./dom.js";

/** @typedef {import("./protocol.js").Fact} Fact */
/** @typedef {import("./protocol.js").TierFigures} TierFigures */
/** @typedef {import("./protocol.js").TierReport} TierReport */

/** The table's columns, by the figures' names. */
const COLUMNS = ["copy", "matmul", "one_warm", "batch_warm"];
/** The figures of the details, with their units. @type {[name: string, text: string, unit: string][]} */
const FIGURES = [
  ["open", "Open", "ms"],
  ["copy", "Copy", "GB/s"],
  ["matmul", "Matmul", "GFLOP/s"],
  ["load", "Load the model", "ms"],
  ["one_cold", "Sentence, first", "ms"],
  ["one_warm", "Sentence, warm", "ms"],
  ["batch_cold", "Batch, first", "ms"],
  ["batch_warm", "Batch, warm", "ms"],
  ["deviation", "Off from the cpu tier", ""],
];
const NONE = "–";

/** @param {TierFigures} measured @param {TierReport["slowdowns"]} [slowdowns] known once all tiers are measured */
export function rowOf(measured, slowdowns = {}) {
  const tier = make("th", "", measured.tier);
  tier.scope = "row";
  if (measured.refused) {
    const why = make("td", "why", measured.refused);
    why.colSpan = COLUMNS.length;
    return make("tr", "", tier, why);
  }
  if (isSoftware(measured)) tier.append(make("small", "", "software adapter"));
  return make("tr", "", tier, ...COLUMNS.map((name) => cellOf(measured.figures[name], slowdowns[name]?.[measured.tier])));
}

/** @param {Fact} fact @param {number | undefined} slowdown */
function cellOf(fact, slowdown) {
  const cell = make("td", slowdown === 1 ? "fastest" : "", textOf(fact));
  if (slowdown !== undefined) cell.append(make("small", "", slowdown === 1 ? "fastest" : `${digits(slowdown)}×`));
  return cell;
}

/** @param {TierFigures} measured */
export function detailsOf(measured) {
  const device = measured.facts.device;
  const rows = [
    rowOfList("Device", device.value === null ? device.source : String(device.value)),
    ...(isSoftware(measured) ? [rowOfList("Kind", "software adapter: a GPU emulated on the CPU")] : []),
    ...FIGURES.map(([name, text, unit]) => rowOfList(text, figureText(measured.figures[name], unit))),
    rowOfList("Timed by", String(measured.facts.timed_by?.value ?? NONE)),
  ];
  return make("details", "", make("summary", "", `${measured.tier}: ${measured.label}`), make("dl", "", ...rows));
}

/** @param {string} name @param {string} text */
function rowOfList(name, text) {
  return make("div", "", make("dt", "", name), make("dd", "", text));
}

/** @param {Fact} fact @param {string} unit */
function figureText(fact, unit) {
  return fact.value === null ? fact.source : `${textOf(fact)} ${unit}`.trimEnd();
}

/** @param {TierFigures} found */
function isSoftware({ facts }) {
  return facts.software?.value === true;
}

/** @param {Fact} fact */
function textOf({ value }) {
  return typeof value === "number" ? digits(value) : NONE;
}

/** About three significant digits. @param {number} value */
function digits(value) {
  if (value && Math.abs(value) < 0.001) return value.toExponential(1);
  const places = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return value.toLocaleString("en", { maximumFractionDigits: places });
}
