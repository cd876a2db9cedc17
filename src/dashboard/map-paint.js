// Draws cells on a canvas: one cell an agent, its kind by colour and shape, its load as the height of
// its fill. Knows neither agents nor where the canvas is.

/** The kinds that cells have, by severity: the order of a bar by state, and of legends. */
export const KINDS = ["lost", "error", "late", "unheard", "paused", "other", "busy", "idle"];

/** The kinds that have no colour of their own. */
const COLOUR_OF = { unheard: "other" };

/** Parts of full colour in what is above the fill; more where someone is needed, whatever the load. */
const EMPTY_STRENGTH = 0.28;
const TROUBLE_STRENGTH = 0.65;
/** Parts of white in a pulse. */
const GLOW_STRENGTH = 0.5;
/** Stages of a pulse, the last of which is none: each costs a drawing of every cell that pulses. */
export const PULSE_STAGES = 3;
/** Loads are told apart in so many steps: what nobody would see is not drawn anew. */
export const LOAD_STEPS = 25;
/** Smaller cells, in device pixels, have one colour, the stronger the more load: a heat map. */
const SMALLEST_FILLED = 12;
/** Shapes within a cell need this many device pixels. */
const SMALLEST_SHAPE = 5;

/** The step of `load`, of 0 to 100 or null. Where there is any load, a little is seen. */
export function stepOf(load) {
  return Math.ceil(((load ?? 0) * LOAD_STEPS) / 100);
}

/**
 * The colours of kinds as `element` sees them: `fill`, `empty`, `glow` and `ramp` (a colour for each step
 * of load) by kind, and `ground`.
 */
export function coloursOf(element) {
  const colours = { fill: {}, empty: {}, glow: {}, ramp: {}, ground: "" };
  const before = element.style.color;
  // A custom property is text; as a colour, the browser has settled the scheme.
  const settled = (name) => {
    element.style.setProperty("color", `var(${name})`);
    return parts(getComputedStyle(element).color);
  };
  const ground = settled("--surface");
  for (const kind of KINDS) {
    const fill = settled(`--kind-${COLOUR_OF[kind] ?? kind}`);
    colours.fill[kind] = css(fill);
    const isTrouble = kind === "error" || kind === "late";
    const empty = mix(ground, fill, isTrouble ? TROUBLE_STRENGTH : EMPTY_STRENGTH);
    colours.empty[kind] = css(empty);
    const rampAt = (step) => css(isTrouble ? fill : mix(empty, fill, step / LOAD_STEPS));
    colours.ramp[kind] = Array.from({ length: LOAD_STEPS + 1 }, (_, step) => rampAt(step));
    colours.glow[kind] = css(mix(fill, [255, 255, 255], GLOW_STRENGTH));
  }
  colours.ground = css(ground);
  element.style.color = before;
  return colours;
}

function parts(colour) {
  return colour.match(/[\d.]+/g).slice(0, 3).map(Number);
}

function mix(one, other, share) {
  return one.map((part, index) => part + (other[index] - part) * share);
}

function css([red, green, blue]) {
  return `rgb(${Math.round(red)} ${Math.round(green)} ${Math.round(blue)})`;
}

/**
 * Draws one cell of `size` device pixels at `x`, `y`, where `kind` is one of `KINDS`, `load` 0 to 100 or
 * null, `pulse` the stage of a pulse, 0 for none, and `isHeat` whether load is strength of colour at any
 * size. What was there must be cleared.
 */
export function paintCell(context, colours, { kind, load }, x, y, size, { pulse = 0, isHeat = false } = {}) {
  if (kind === "lost" || kind === "unheard") return paintGone(context, colours.fill[kind], kind, x, y, size);
  const isRound = kind === "idle" && size >= SMALLEST_SHAPE;
  if (isHeat || size < SMALLEST_FILLED) {
    context.fillStyle = colours.ramp[kind][stepOf(load)];
    paintGround(context, isRound, x, y, size);
  } else {
    const filled = Math.round(((load ?? 0) / 100) * size);
    context.fillStyle = colours.empty[kind];
    paintGround(context, isRound, x, y, size);
    context.fillStyle = colours.fill[kind];
    if (isRound) fillSegment(context, x, y, size, filled);
    else fillRounded(context, x, y + size - filled, size, filled, filled < size ? [0, 0, size / 5, size / 5] : size / 5);
  }
  if (pulse > 0) {
    context.globalAlpha = pulse / (PULSE_STAGES - 1);
    context.fillStyle = colours.glow[kind];
    paintGround(context, isRound, x, y, size);
    context.globalAlpha = 1;
  }
  if (size >= SMALLEST_SHAPE) SHAPES[kind]?.(context, colours, x, y, size);
}

/** An idle agent's cell is a disc, all others are squares. */
function paintGround(context, isRound, x, y, size) {
  if (isRound) fillSegment(context, x, y, size, size);
  else if (size < SMALLEST_FILLED) context.fillRect(x, y, size, size);
  else fillRounded(context, x, y, size, size, size / 5);
}

function fillRounded(context, x, y, width, height, radii) {
  if (height === 0) return;
  context.beginPath();
  context.roundRect(x, y, width, height, radii);
  context.fill();
}

/** A frame, of a loss with a cross: nobody is there, or nobody knows. */
function paintGone(context, colour, kind, x, y, size) {
  const line = Math.max(1, Math.round(size / 7));
  context.strokeStyle = colour;
  context.lineWidth = line;
  context.strokeRect(x + line / 2, y + line / 2, size - line, size - line);
  if (kind === "unheard" || size < SMALLEST_SHAPE) return;
  context.beginPath();
  context.moveTo(x + line, y + line);
  context.lineTo(x + size - line, y + size - line);
  context.moveTo(x + size - line, y + line);
  context.lineTo(x + line, y + size - line);
  context.stroke();
}

/** The lowest `height` pixels of a disc. */
function fillSegment(context, x, y, size, height) {
  if (height === 0) return;
  const radius = size / 2;
  const half = Math.acos(1 - height / radius);
  context.beginPath();
  context.arc(x + radius, y + radius, radius, Math.PI / 2 - half, Math.PI / 2 + half);
  context.fill();
}

/** What a kind has in its cell beside its colour, in the colour of the ground. */
const SHAPES = {
  // An exclamation mark.
  error(context, colours, x, y, size) {
    const line = Math.max(1, Math.round(size / 6));
    const middle = x + Math.round((size - line) / 2);
    context.fillStyle = colours.ground;
    context.fillRect(middle, y + line, line, Math.round(size / 2) - line);
    context.fillRect(middle, y + size - 2 * line, line, line);
  },
  // A corner is missing.
  late(context, colours, x, y, size) {
    const cut = Math.round(size * 0.55);
    context.fillStyle = colours.ground;
    context.beginPath();
    context.moveTo(x + size - cut, y);
    context.lineTo(x + size, y);
    context.lineTo(x + size, y + cut);
    context.fill();
  },
  // Two bars.
  paused(context, colours, x, y, size) {
    const line = Math.max(1, Math.round(size / 6));
    const high = Math.max(2, Math.round(size / 2));
    const top = y + Math.round((size - high) / 2);
    context.fillStyle = colours.ground;
    context.fillRect(x + Math.round(size / 2) - Math.round(1.5 * line), top, line, high);
    context.fillRect(x + Math.round(size / 2) + Math.round(0.5 * line), top, line, high);
  },
  // A hole.
  other(context, colours, x, y, size) {
    const hole = Math.max(1, Math.round(size / 3));
    const inset = Math.round((size - hole) / 2);
    context.fillStyle = colours.ground;
    context.fillRect(x + inset, y + inset, hole, hole);
  },
};
