// The bundle's scale, and the stars that a person chooses from on it. It may change while the page is open.

const MOST_STEPS = 10;
const NARROW = 2; // fewer than three whole stars would be no choice
const NARROW_STEPS = 4;

let scale = { lowest: 1, highest: 5 };
const listeners = [];

export const starScale = () => scale;

export function useScale({ lowest, highest }) {
  if (lowest === scale.lowest && highest === scale.highest) return;
  scale = { lowest, highest };
  for (const listener of listeners) listener();
}

export const whenScaleChanges = (listener) => { listeners.push(listener); };

// Ascending, both ends among them: whole stars, on a wide scale every second, fifth, tenth…, on a narrow one five evenly.
export function starChoices({ lowest, highest } = scale) {
  const width = highest - lowest;
  const between = width < NARROW
    ? Array.from({ length: NARROW_STEPS - 1 }, (_, index) => lowest + (width * (index + 1)) / NARROW_STEPS)
    : multiples(roundStep(width / MOST_STEPS), lowest, highest);
  return [lowest, ...between.map((value) => Number(value.toPrecision(6))), highest];
}

// The least of 1, 2, 5, 10, 20, 50… that is no less.
function roundStep(least) {
  const power = 10 ** Math.max(0, Math.floor(Math.log10(least)));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least);
}

function multiples(step, above, below) {
  const first = Math.floor(above / step) + 1;
  const count = Math.max(0, Math.ceil(below / step) - first);
  return Array.from({ length: count }, (_, index) => (first + index) * step);
}
