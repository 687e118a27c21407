// Where the tokens go: the load of every expert over training, how undecided the routers are, what they drop, who is dead.

const HEAT = [[0, 32, 81], [60, 76, 110], [124, 123, 120], [187, 173, 108], [253, 231, 76]];  // dark to bright, also without colours

function heat(share) {
  const place = Math.max(0, Math.min(0.9999, share)) * (HEAT.length - 1), below = Math.floor(place), part = place - below;
  return `rgb(${HEAT[below].map((value, index) => Math.round(value + part * (HEAT[below + 1][index] - value))).join(" ")})`;
}

chart("load-chart", (place) => {
  const routed = data.routing[Number(chosen("routed").value)], layers = routed.layers;
  const cell = Math.max(3, Math.min(14, Math.floor(240 / Math.max(...layers.map((layer) => layer.load[0].length)))));
  const heights = layers.map((layer) => cell * layer.load[0].length), gap = 8;
  const box = frame(place, { height: 56 + heights.reduce((a, b) => a + b, 0) + gap * (layers.length - 1), left: 76, label: `Load of each expert of ${arms[routed.arm].name} over training, in even shares` });
  const steps = routed.steps, most = 3, x = scale(0, steps.length, box.left, box.right);
  let top = box.top;
  layers.forEach((layer, index) => {
    layer.load.forEach((row, step) => row.forEach((value, expert) => box.root.append(svg("rect", {
      x: x(step).toFixed(1), width: (x(step + 1) - x(step) + 0.5).toFixed(1), y: top + cell * expert, height: cell, fill: heat(value / most),
    }, cell > 5 && row.length * steps.length < 3000 ? svg("title", null, `${layer.name}, expert ${expert}, step ${steps[step]}: ${fixed(value, 2)} even shares`) : null))));
    box.root.append(svg("text", { class: "tick", x: box.left - 6, y: top + heights[index] / 2 + 4, "text-anchor": "end" }, layer.name));
    top += heights[index] + gap;
  });
  box.bottom = top - gap;
  const marks = scale(0, steps.length - 1, x(0.5), x(steps.length - 0.5));
  for (const tick of ticks(marks, Math.floor((box.right - box.left) / 90)).filter(Number.isInteger))
    box.root.append(svg("text", { class: "tick", x: marks(tick), y: box.bottom + 15, "text-anchor": "middle" }, si(steps[tick])));
  box.root.append(svg("text", { class: "label", x: (box.left + box.right) / 2, y: box.height - 5, "text-anchor": "middle" }, "steps"));
  place.replaceChildren(box.root);
});

for (const key of ["entropy", "dropped", "dead"]) chart(`${key}-chart`, (place) => {
  const shown = new Set(shownArms().map((arm) => arm.index)), lines = data.routing.filter((one) => shown.has(one.arm));
  const values = lines.flatMap((one) => one[key]).filter(known);
  if (!values.length || Math.max(...values) === 0) return place.replaceChildren(h("p", { class: "beside" }, values.length ? "None." : "Not logged."));
  const box = frame(place, { height: 190, left: 50, label: `${key} of the routers over training` });
  const steps = lines.flatMap((one) => one.steps);
  const x = scale(Math.min(...steps), Math.max(...steps), box.left, box.right), y = scale(Math.min(0, ...values), Math.max(...values), box.bottom, box.top);
  axisX(box, x, "steps"); axisY(box, y, "");
  for (const one of lines) {
    const { colour, dash } = mark(arms[one.arm]);
    box.root.append(svg("path", { class: "curve" + (pale(arms[one.arm]) ? " pale" : ""), "data-arm": one.arm, style: `--colour: ${colour}`, "stroke-dasharray": dash, d: path(one.steps.map((step, index) => ({ x: step, y: one[key][index] })).filter((p) => known(p.y)), x, y) }, svg("title", null, arms[one.arm].name)));
  }
  place.replaceChildren(box.root);
});

if (chosen("routed")) chosen("routed").addEventListener("input", changed);
