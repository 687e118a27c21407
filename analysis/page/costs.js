// What a result costs: every arm as a point, and the line of those that nothing beats on both.

chart("costs-chart", (place) => {
  const cost = data.costs.find((one) => one.key === chosen("cost").value);
  const shown = shownArms().filter((arm) => known(arm.mean) && arm[cost.key] > 0);
  if (!shown.length) return place.replaceChildren(h("p", null, "No arm has both."));
  const ys = cluster(shown.map((arm) => arm.mean));
  const inside = shown.filter((arm) => !ys.outside(arm.mean));
  const ends = inside.flatMap((arm) => [arm.mean - (arm.sd || 0), arm.mean + (arm.sd || 0)]);  // of the bars
  const most = Math.max(...inside.map((arm) => arm[cost.key])), least = Math.min(...inside.map((arm) => arm[cost.key])), log = most / least > 8;
  const box = frame(place, { height: place.clientWidth < 500 ? 300 : 400, label: `${metric.unit} against ${cost.head}; the table has the numbers` });
  const x = scale(...margin(least, most, 0.12, log), box.left, box.right, log), y = scale(...margin(Math.min(...ends), Math.max(...ends), 0.08), box.bottom, box.top);
  axisX(box, x, `${cost.head}${cost.small ? " " + cost.small : ""}`, { unit: cost.unit }); axisY(box, y, metric.unit);
  const better = (a, b) => metric.lower ? a <= b : a >= b, cheaper = (a, b) => cost.higher ? a >= b : a <= b;
  const front = inside.filter((arm) => !inside.some((other) => better(other.mean, arm.mean) && cheaper(other[cost.key], arm[cost.key])
    && (other.mean !== arm.mean || other[cost.key] !== arm[cost.key]))).sort((a, b) => a[cost.key] - b[cost.key]);
  box.root.append(svg("path", { class: "front", d: front.map((arm, index) => {
    const [px, py] = [x(arm[cost.key]), y(arm.mean)];
    return index ? (cost.higher ? `V${py}H${px}` : `H${px}V${py}`) : `M${px} ${py}`;
  }).join("") }));
  const points = inside.map((arm) => ({ arm, name: arm.name, x: x(arm[cost.key]), y: y(arm.mean) }));
  for (const { arm, x: px, y: py } of points) {
    const spread = known(arm.sd) ? [svg("line", { x1: px, x2: px, y1: y(arm.mean - arm.sd), y2: y(arm.mean + arm.sd) })] : [];
    const low = (arm.around || {})[cost.key], across = low ? [svg("line", { x1: x(low[0]), x2: x(low[1]), y1: py, y2: py })] : [];
    box.root.append(svg("g", { "data-arm": arm.index, class: "point" + (pale(arm) ? " pale" : ""), style: `--colour: ${mark(arm).colour}`, click: () => pick(arm) },
      svg("title", null, `${arm.name}: ${fixed(arm.mean, digits)} at ${si(arm[cost.key], cost.unit)}`), ...spread, ...across, svg("circle", { cx: px, cy: py, r: 5, class: front.includes(arm) ? "on-front" : null })));
  }
  placeNames(box, [...points].sort((a, b) => front.includes(b.arm) - front.includes(a.arm)));
  place.replaceChildren(box.root);
  told(chosen("costs-beside"), shown.filter((arm) => !inside.includes(arm)).map((arm) => `Outside this view: ${arm.name}, ${fixed(arm.mean, digits)} at ${si(arm[cost.key], cost.unit)}.`));
});

if (chosen("cost")) chosen("cost").addEventListener("input", changed);
