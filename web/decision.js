// Which tiers "auto" considered for the model: their expected times, or why they were refused.

/** @typedef {import("./protocol.js").Decision} Decision */
/** @typedef {import("./protocol.js").Considered} Considered */

/** @param {HTMLElement} box a details element with a list @param {Decision | null} decision */
export function showDecision(box, decision) {
  box.hidden = decision === null;
  const rows = (decision?.considered ?? []).map((tier) => {
    const row = document.createElement("li");
    row.textContent = `${tier.tier}: ${describe(tier)}`;
    if (tier.tier === decision?.chosen) row.ariaCurrent = "true";
    return row;
  });
  box.querySelector("ul")?.replaceChildren(...rows);
}

/** @param {Considered} tier */
function describe({ refused, expected_ms, source }) {
  if (refused) return `refused, ${refused}`;
  if (expected_ms === null) return source;
  const time = expected_ms < 1000 ? `${expected_ms.toPrecision(3)} ms` : `${(expected_ms / 1000).toFixed(1)} s`;
  return `${time} a pass, ${source}`;
}
