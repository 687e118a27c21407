// Learning curves: over steps, tokens, FLOPs or seconds; smoothed or not; seeds as a band or as lines.

const AXES = { step: "steps", tokens: "training tokens", flops: "training FLOPs", seconds: "seconds of training" };
const chosen = (id) => document.getElementById(id);

function pointsOf(curve, by) {
  const steps = data.grids[curve.grid];
  const x = by === "step" ? steps : Array.isArray(curve[by]) ? curve[by] : steps.map((step) => step * curve[by]);
  const strength = Number(chosen("smoothing").value) / 100;
  let sum = 0, weight = 0;  // an average that forgets: of so many of the last values
  const y = curve.y.map((value) => {
    if (!known(value)) return null;
    sum = strength * sum + (1 - strength) * value; weight = strength * weight + 1 - strength;
    return sum / weight;
  });
  return x.map((value, index) => ({ x: value, y: y[index], step: steps[index] })).filter((p) => known(p.x) && known(p.y));
}

// Per arm: its runs as they are, and their mean and spread at the steps that all of them have.
function linesOf(by) {
  const split = chosen("split").value;
  return shownArms().map((arm) => {
    const runs = arm.runs.filter((run) => holds(wordsOf(run)))
      .map((run) => data.curves.find((curve) => curve.run === run.index && curve.split === split))
      .filter(Boolean).map((curve) => pointsOf(curve, by)).filter((points) => points.length);
    const at = new Map();
    for (const points of runs) for (const point of points) at.set(point.step, [...(at.get(point.step) || []), point]);
    const middle = [...at.entries()].filter(([, points]) => points.length === runs.length).sort(([a], [b]) => a - b)
      .map(([, points]) => { const y = points.map((p) => p.y); return { x: mean(points.map((p) => p.x)), y: mean(y), sd: y.length > 1 ? sd(y) : 0 }; });
    return { arm, runs, middle };
  }).filter((line) => line.runs.length);
}

function limitsOf(lines, by, logX, logY) {
  const points = lines.flatMap((line) => line.runs.flat());
  const xs = points.map((p) => p.x).filter((x) => !logX || x > 0);
  const [low, high] = [Math.min(...xs), Math.max(...xs)];
  const ends = cluster(lines.map((line) => line.middle.length ? line.middle[line.middle.length - 1].y : null));
  const outside = lines.filter((line) => line.middle.length && ends.outside(line.middle[line.middle.length - 1].y));
  const whole = chosen("whole").checked, kept = whole ? lines : lines.filter((line) => !outside.includes(line));
  // Where all begin, at a uniform guess, nothing is compared: the first tenth of a long way does not set the height.
  const brief = whole || Math.max(...kept.map((line) => line.middle.length)) < 12;
  const later = kept.flatMap((line) => line.runs.flat()).filter((p) => brief || p.x >= low + 0.1 * (high - low)).map((p) => p.y).filter((y) => !logY || y > 0);
  if (known(data.chance) && chosen("split").value === "val") later.push(data.chance);
  return { x: [low, high], y: margin(Math.min(...later), Math.max(...later), 0.04, logY), outside: whole ? [] : outside };
}

const path = (points, x, y) => points.map((p, index) => `${index ? "L" : "M"}${x(p.x).toFixed(1)} ${y(p.y).toFixed(1)}`).join("");

chart("curves-chart", (place) => {
  const by = chosen("over").value, logY = chosen("log-y").checked;
  const lines = linesOf(by), logX = chosen("log-x").checked;
  if (!lines.length) return place.replaceChildren(h("p", null, "None of these runs has logged it."));
  const limits = limitsOf(lines, by, logX, logY);
  const unit = chosen("split").value === "val" ? metric.unit : "training loss, nats per token";
  const box = frame(place, { height: place.clientWidth < 500 ? 300 : 400, label: `${unit} over ${AXES[by]}, a line for each arm; arrow keys read the values` });
  const x = scale(...limits.x, box.left, box.right, logX), y = scale(...limits.y, box.bottom, box.top, logY);
  axisX(box, x, AXES[by]); axisY(box, y, unit);
  const clip = `clip-${by}`;
  box.root.append(svg("clipPath", { id: clip }, svg("rect", { x: box.left, y: box.top, width: box.right - box.left, height: box.bottom - box.top })));
  const drawn = svg("g", { "clip-path": `url(#${clip})` });
  const real = (points) => points.filter((p) => (!logX || p.x > 0) && (!logY || p.y > 0));
  for (const { arm, runs, middle } of lines) {
    const { colour, dash } = mark(arm), group = svg("g", { "data-arm": arm.index, class: "line" + (pale(arm) ? " pale" : ""), style: `--colour: ${colour}` });
    group.append(svg("title", null, arm.name));
    if (chosen("seeds").value === "lines") for (const points of runs) group.append(svg("path", { class: "curve thin", "stroke-dasharray": dash, d: path(real(points), x, y) }));
    else {
      const points = real(middle), edge = points.map((p) => ({ x: p.x, y: p.y + p.sd })), under = points.map((p) => ({ x: p.x, y: logY ? Math.max(p.y - p.sd, y.low) : p.y - p.sd })).reverse();
      if (runs.length > 1) group.append(svg("path", { class: "spread", d: path([...edge, ...under], x, y) + "Z" }));
      group.append(svg("path", { class: "curve", "stroke-dasharray": dash, d: path(points, x, y) }));
    }
    drawn.append(group);
  }
  if (known(data.chance) && chosen("split").value === "val" && data.chance >= y.low && data.chance <= y.high) {
    const height = y(data.chance);
    box.root.append(svg("line", { class: "chance", x1: box.left, x2: box.right, y1: height, y2: height }), svg("text", { class: "name", x: box.right, y: height - 5, "text-anchor": "end" }, "guessing"));
  }
  box.root.append(drawn);
  place.replaceChildren(box.root, reader(box, lines, x, y, by));
  told(chosen("curves-beside"), limits.outside.map((line) => `Outside this view: ${line.arm.name}, which ends at ${fixed(line.middle[line.middle.length - 1].y, digits)}.`));
  legend(lines.map((line) => line.arm));
});

// The values under the pointer, or under a line that the arrow keys move.
function reader(box, lines, x, y, by) {
  const rule = svg("line", { class: "rule", y1: box.top, y2: box.bottom }), note = h("div", { class: "note", "aria-live": "polite" });
  const places = [...new Set(lines.flatMap((line) => line.middle.map((p) => p.x)))].sort((a, b) => a - b);
  let at = places.length - 1;
  const show = () => {
    const value = places[at], pixel = x(value);
    const found = lines.map(({ arm, middle }) => ({ arm, p: middle.reduce((best, p) => !best || Math.abs(p.x - value) < Math.abs(best.p - value) ? { p: p.x, y: p.y } : best, null) }))
      .filter((one) => one.p).sort((a, b) => metric.lower ? a.p.y - b.p.y : b.p.y - a.p.y).slice(0, 12);
    rule.setAttribute("x1", pixel); rule.setAttribute("x2", pixel);
    if (!rule.parentNode) box.root.append(rule);
    note.replaceChildren(h("b", null, `${si(value)} ${AXES[by]}`), ...found.map(({ arm, p }) =>
      h("div", null, h("span", { class: "swatch", style: `background: ${mark(arm).colour}` }), `${fixed(p.y, digits)} ${arm.name}`)));
    note.style.left = pixel < box.width / 2 ? `${pixel + 14}px` : "auto";
    note.style.right = pixel < box.width / 2 ? "auto" : `${box.width - pixel + 14}px`;
    note.hidden = false;
  };
  const hide = () => { note.hidden = true; rule.remove(); };
  box.root.setAttribute("tabindex", "0");
  box.root.addEventListener("pointermove", (event) => {
    const value = x.back(event.clientX - box.root.getBoundingClientRect().left);
    at = places.reduce((best, place, index) => Math.abs(x(place) - x(value)) < Math.abs(x(places[best]) - x(value)) ? index : best, 0);
    show();
  });
  box.root.addEventListener("pointerleave", hide);
  box.root.addEventListener("blur", hide);
  box.root.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    at = Math.max(0, Math.min(places.length - 1, at + step));
    event.preventDefault(); show();
  });
  note.hidden = true;
  return note;
}

// One entry per arm, or per option where the colours are those of an axis.
function legend(shown) {
  const sample = (colour, dash) => svg("svg", { width: 26, height: 10, "aria-hidden": "true" }, svg("line", { x1: 0, x2: 26, y1: 5, y2: 5, style: `stroke: ${colour}`, "stroke-width": 2.5, "stroke-dasharray": dash }));
  const entry = (text, { colour, dash }, of) => h("button", { "data-arm": of.length === 1 ? of[0].index : null, class: of.every(pale) ? "pale" : null, "aria-pressed": String(of.every((arm) => state.picked.has(arm.index))), click: () => of.forEach(pick) }, sample(colour, dash), text);
  const groups = state.colours === "arm" ? shown.map((arm) => [arm.name, [arm]])
    : optionsOf(state.colours).map((option) => [option, shown.filter((arm) => arm.choices[state.colours] === option)]).filter(([, of]) => of.length);
  chosen("legend").replaceChildren(...groups.map(([text, of]) => entry(String(text), mark(of[0]), of)));
}

for (const id of ["over", "split", "seeds", "smoothing", "log-x", "log-y", "whole"]) if (chosen(id)) chosen(id).addEventListener("input", changed);
if (chosen("colours")) chosen("colours").addEventListener("input", (event) => { state.colours = event.target.value; changed(); });
