// Parallel coordinates: an arm is a line through its options, costs and result; a range chosen on an axis filters all of the page.

const upright = [
  ...data.axes.map((key) => ({ key, head: key, of: (arm) => arm.choices[key], options: [...new Set(arms.map((arm) => arm.choices[key]))] })),
  ...data.costs.filter((cost) => !cost.speed || data.timed).map((cost) => ({ key: cost.key, head: cost.head, unit: cost.unit, of: (arm) => arm[cost.key] })),
  { key: "metric", head: metric.unit, of: (arm) => arm.mean },
].filter((axis) => axis.key === "metric" || new Set(arms.map(axis.of)).size > 1);

chart("parallel-chart", (place) => {
  const box = frame(place, { height: 300, left: 70, right: 70, top: 50, bottom: 22, label: "Parallel coordinates of the arms; the table has the numbers" });
  const at = (index) => box.left + (box.right - box.left) * (upright.length > 1 ? index / (upright.length - 1) : 0.5);
  const heights = upright.map((axis) => {
    if (axis.options) return (value) => box.bottom - (box.bottom - box.top) * (axis.options.indexOf(value) + 0.5) / axis.options.length;
    const values = arms.map(axis.of).filter(known), log = Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > 20;
    return scale(Math.min(...values), Math.max(...values), box.bottom, box.top, log);
  });
  const inside = new Set(shownArms());
  for (const arm of arms) {
    const points = upright.map((axis, index) => ({ x: at(index), value: axis.of(arm) })).map((p, index) => ({ ...p, y: heights[index](p.value) }))
      .filter((p) => p.value !== null && p.value !== undefined && isFinite(p.y));
    const d = points.map((p, index) => `${index ? "L" : "M"}${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("");
    box.root.append(svg("path", { "data-arm": arm.index, class: "through" + (!inside.has(arm) || pale(arm) ? " pale" : ""), style: `--colour: ${mark(arm).colour}`, d }, svg("title", null, arm.name)));
  }
  upright.forEach((axis, index) => drawUpright(box, axis, at(index), heights[index], index % 2));
  place.replaceChildren(box.root);
  const clear = h("button", { click: () => { state.ranges.clear(); changed(); } }, "all again");
  chosen("ranges").replaceChildren(...(state.ranges.size ? [h("span", null, [...state.ranges].map(([axis, range]) =>
    range.low === undefined ? `${axis.head}: ${range.value}` : `${axis.head}: ${three(range.low)} to ${three(range.high)}`).join(", ") + " "), clear] : []));
});

function drawUpright(box, axis, x, y, raised) {
  box.root.append(svg("line", { class: "upright", x1: x, x2: x, y1: box.top, y2: box.bottom }),
    svg("text", { class: "label", x, y: raised ? 12 : 28, "text-anchor": "middle" }, axis.head));
  if (axis.options) {
    for (const value of axis.options) {
      const toggle = () => { const same = (state.ranges.get(axis) || {}).value === value; if (same) state.ranges.delete(axis); else state.ranges.set(axis, { value }); changed(); };
      box.root.append(svg("text", { class: "option", role: "button", tabindex: 0, x: x + 6, y: y(value) + 4, click: toggle,
        keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); toggle(); } } }, String(value ?? NONE)));
    }
    return;
  }
  for (const end of [y.low, y.high]) box.root.append(svg("text", { class: "tick", x: x + 5, y: y(end) + (end === y.low ? 12 : -3) }, si(end, axis.unit)));
  const range = state.ranges.get(axis);
  if (range) box.root.append(svg("rect", { class: "chosen", x: x - 6, width: 12, y: y(range.high), height: y(range.low) - y(range.high) }));
  const grip = svg("rect", { class: "grip", x: x - 10, width: 20, y: box.top, height: box.bottom - box.top });
  let from = null;
  const valueAt = (event) => Math.max(y.low, Math.min(y.high, y.back(event.clientY - box.root.getBoundingClientRect().top)));
  grip.addEventListener("pointerdown", (event) => { from = valueAt(event); grip.setPointerCapture(event.pointerId); });
  grip.addEventListener("pointerup", (event) => {
    const to = valueAt(event), far = Math.abs(y(to) - y(from)) > 4;
    if (far) state.ranges.set(axis, { low: Math.min(from, to), high: Math.max(from, to) }); else state.ranges.delete(axis);
    from = null; changed();
  });
  box.root.append(grip);
}
