// What the reader has chosen, and who redraws when that changes.

const data = JSON.parse(document.getElementById("data").textContent);
const arms = data.arms;
arms.forEach((arm, index) => { arm.index = index; arm.runs = []; });
data.runs.forEach((run, index) => { run.index = index; arms[run.arm].runs.push(run); });

const state = { words: [], picked: new Set(), ranges: new Map(), colours: "arm", draws: [] };

function onChange(draw) {
  state.draws.push(draw);
}

function changed() {
  for (const draw of state.draws) draw();
}

function words(arm) {
  const own = [arm.name, arm.id, arm.verdict, ...Object.values(arm.choices)];
  return own.concat(arm.runs.map((run) => run.status)).join(" ").toLowerCase();
}

function wordsOf(run) {
  return [words(arms[run.arm]), run.name, run.status, run.error || "", "seed " + run.seed].join(" ").toLowerCase();
}

const holds = (text) => state.words.every((word) => text.includes(word));

function inRanges(arm) {
  for (const [axis, range] of state.ranges) {
    const value = axis.of(arm);
    if (range.low === undefined ? value !== range.value : !(value >= range.low && value <= range.high)) return false;
  }
  return true;
}

// An arm is shown while it, or a run of it, answers the filter, and it lies in all ranges.
function shownArms() {
  return arms.filter((arm) => inRanges(arm) && (holds(words(arm)) || arm.runs.some((run) => holds(wordsOf(run)))));
}

// Some are picked: the others stay pale.
const pale = (arm) => state.picked.size > 0 && !state.picked.has(arm.index);

// A colour and a line for each arm, or one colour for each option of an axis.
const DASHES = [null, "7 3", "2 2", "7 2 2 2"];
const COLOURS = 8;

function mark(arm) {
  if (state.colours === "arm") {
    if (arm.base) return { colour: "var(--ink)", dash: null };
    const place = arms.filter((other) => !other.base).indexOf(arm);
    return { colour: `var(--c${place % COLOURS})`, dash: DASHES[Math.floor(place / COLOURS) % DASHES.length] };
  }
  const options = optionsOf(state.colours), place = options.indexOf(arm.choices[state.colours]);
  return { colour: `var(--c${place % COLOURS})`, dash: DASHES[Math.floor(place / COLOURS) % DASHES.length] };
}

function optionsOf(axis) {
  return [...new Set(arms.map((arm) => arm.choices[axis]))];
}

// Whatever belongs to one arm is marked with it: pointed at anywhere, it is lit everywhere.
document.addEventListener("pointerover", (event) => {
  const found = event.target.closest ? event.target.closest("[data-arm]") : null;
  for (const node of document.querySelectorAll(".lit")) node.classList.remove("lit");
  if (found) for (const node of document.querySelectorAll(`[data-arm="${found.dataset.arm}"]`)) node.classList.add("lit");
});

function pick(arm) {
  if (!state.picked.delete(arm.index)) state.picked.add(arm.index);
  changed();
}
