// How numbers are written, in any language. Pure; no DOM.

import { HOT_PERCENT, WARM_PERCENT } from "./health.js";

/** One decimal, and never rounded up over a boundary at which the colour changes. */
export function percent(value) {
  let rounded = Math.round(value * 10) / 10;
  for (const boundary of [WARM_PERCENT, HOT_PERCENT, 100]) {
    if (value < boundary && rounded >= boundary) rounded = boundary - 0.1;
  }
  return `${rounded.toFixed(1)} %`;
}

/** A span of time, as short as it can be told apart: `units` writes it. Below an hour by one unit, then by two. */
export function spanIn(units, ms) {
  const seconds = Math.floor(ms / 1_000);
  if (seconds < 60) return units.seconds(seconds);
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return units.minutes(minutes);
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return units.hours(hours, minutes % 60);
  return units.days(Math.floor(hours / 24), hours % 24);
}
