// The differences from the baseline, each with its interval and its verdict.

chart("forest", (place) => {
  const shown = shownArms().filter((arm) => !arm.base && known(arm.difference));
  if (!shown.length) return place.replaceChildren(h("p", null, "No other arm has a difference to show."));
  const room = Math.min(0.42 * place.clientWidth, 8 + 7 * Math.max(...shown.map((arm) => arm.name.length)));
  const wide = place.clientWidth > 560;
  const box = frame(place, { height: 58 + 24 * shown.length, left: room, right: wide ? 110 : 16, label: "Differences from the baseline with 95 % intervals; the table has the numbers" });
  const ends = shown.flatMap((arm) => [arm.low, arm.high, arm.difference]).filter(known), near = cluster(shown.map((arm) => arm.difference));
  const inside = shown.filter((arm) => !near.outside(arm.difference)).flatMap((arm) => [arm.low, arm.high, arm.difference]).filter(known);
  const limits = inside.length > 2 ? inside : ends;
  const x = scale(...margin(Math.min(0, ...limits), Math.max(0, ...limits), 0.05), box.left, box.right);
  const band = data.noise;
  if (known(band)) box.root.append(svg("rect", { class: "band", x: x(Math.max(-band, x.low)), width: x(Math.min(band, x.high)) - x(Math.max(-band, x.low)), y: box.top, height: box.bottom - box.top }));
  axisX(box, x, `difference from ${data.baseline} (${metric.unit})`, { text: (value) => signed(value, digits) });
  box.root.append(svg("line", { class: "zero", x1: x(0), x2: x(0), y1: box.top, y2: box.bottom }));
  const most = Math.floor((room - 8) / 6.6);
  shown.forEach((arm, index) => {
    const y = box.top + 14 + 24 * index, clip = (value) => Math.max(x.low, Math.min(x.high, value));
    const row = svg("g", { class: "row " + arm.kind + (pale(arm) ? " pale" : ""), "data-arm": arm.index });
    const name = arm.name.length > most ? arm.name.slice(0, most - 1) + "…" : arm.name;
    row.append(svg("title", null, `${arm.name}: ${signed(arm.difference, digits)} [${fixed(arm.low, digits)}, ${fixed(arm.high, digits)}], ${arm.verdict}`),
      svg("text", { class: "name", x: box.left - 8, y: y + 4, "text-anchor": "end" }, name));
    if (known(arm.low)) row.append(svg("line", { class: "interval", x1: x(clip(arm.low)), x2: x(clip(arm.high)), y1: y, y2: y }));
    if (arm.difference >= x.low && arm.difference <= x.high) row.append(svg("circle", { cx: x(arm.difference), cy: y, r: 4.5 }));
    else {
      const left = arm.difference < x.low;
      row.append(arrow(left ? box.left + 8 : box.right - 8, y, left), svg("text", { class: "name", x: left ? box.left + 14 : box.right - 14, y: y - 5, "text-anchor": left ? "start" : "end" }, signed(arm.difference, digits)));
    }
    if (wide) row.append(svg("text", { class: "name", x: box.right + 10, y: y + 4 }, arm.verdict));
    box.root.append(row);
  });
  place.replaceChildren(box.root);
});
