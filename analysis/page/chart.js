// Scales, axes and names that do not overlap. A chart is drawn at the width that it has, so that letters keep their size.

function scale(low, high, from, to, log) {
  const bend = log ? Math.log10 : (x) => x;
  const [a, b] = low === high ? [bend(low) - 0.5, bend(high) + 0.5] : [bend(low), bend(high)];
  const place = (x) => from + (to - from) * (bend(x) - a) / (b - a);
  place.back = (pixel) => { const x = a + (b - a) * (pixel - from) / (to - from); return log ? 10 ** x : x; };
  place.low = low; place.high = high; place.log = log;
  return place;
}

function ticks(place, count) {
  const { low, high, log } = place;
  if (log && high / low > 20) {
    const found = [];
    for (let power = Math.ceil(Math.log10(low)); 10 ** power <= high; power++) found.push(10 ** power);
    if (found.length > 1) return found.filter((_, index) => index % Math.ceil(found.length / count) === 0);
  }
  const raw = (high - low || Math.abs(low) || 1) / count, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * size).find((size) => size >= raw);
  const found = [];
  for (let x = Math.ceil(low / step); x * step <= high + 1e-9 * step; x++) found.push(x * step);
  return found;
}

function frame(place, { height, left = 62, right = 16, top = 10, bottom = 40, label }) {
  const width = Math.max(280, place.clientWidth);
  const root = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  return { root, width, height, left, right: width - right, top, bottom: height - bottom };
}

function axisX(box, place, label, { unit = "", text } = {}) {
  const found = ticks(place, Math.max(2, Math.floor((box.right - box.left) / 90)));
  const step = Math.min(...found.slice(1).map((tick, index) => tick - found[index]), Infinity);
  for (const tick of found) {
    const x = place(tick);
    box.root.append(svg("line", { class: "grid", x1: x, x2: x, y1: box.top, y2: box.bottom }),
      svg("text", { class: "tick", x, y: box.bottom + 15, "text-anchor": "middle" }, text ? text(tick) : tickText(tick, isFinite(step) ? step : tick, unit)));
  }
  box.root.append(svg("text", { class: "label", x: (box.left + box.right) / 2, y: box.height - 5, "text-anchor": "middle" }, label));
}

function axisY(box, place, label, text) {
  const values = ticks(place, Math.max(2, Math.floor((box.bottom - box.top) / 45)));
  const decimals = Math.max(0, Math.min(6, Math.ceil(-Math.log10(Math.abs(values[1] - values[0] || 1)))));
  for (const tick of values) {
    const y = place(tick);
    box.root.append(svg("line", { class: "grid", x1: box.left, x2: box.right, y1: y, y2: y }),
      svg("text", { class: "tick", x: box.left - 6, y: y + 4, "text-anchor": "end" }, text ? text(tick) : fixed(tick, decimals)));
  }
  const middle = (box.top + box.bottom) / 2;
  box.root.append(svg("text", { class: "label", x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, label));
}

// The range of most values; what lies far from it (three times the middle half's width beyond) is told beside the chart.
function cluster(values) {
  const found = [...values].filter(known).sort((a, b) => a - b);
  if (found.length < 4) return { low: found[0], high: found[found.length - 1], outside: () => false };
  const [q1, q3] = [quantile(found, 0.25), quantile(found, 0.75)], room = 3 * (q3 - q1) || Infinity;
  const inside = found.filter((value) => value >= q1 - room && value <= q3 + room);
  return { low: inside[0], high: inside[inside.length - 1], outside: (value) => value < inside[0] || value > inside[inside.length - 1] };
}

function margin(low, high, share, log) {
  if (log) { const room = (high / low) ** share || 1.1; return [low / Math.max(room, 1.02), high * Math.max(room, 1.02)]; }
  const room = share * (high - low || Math.abs(high) || 1);
  return [low - room, high + room];
}

// Each name beside its point: the first of a few places where it meets no other name, no point and no edge; else it is left out.
function placeNames(box, points) {
  const taken = points.map(({ x, y }) => ({ x0: x - 6, x1: x + 6, y0: y - 6, y1: y + 6 }));
  const meets = (a) => a.x0 < box.left || a.x1 > box.right || a.y0 < box.top || a.y1 > box.bottom
    || taken.some((b) => a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1);
  for (const { x, y, name, arm } of points) {
    const width = 6.6 * name.length + 4;
    const places = [[9, 4], [-9 - width, 4], [-width / 2, -10], [-width / 2, 18], [9, -8], [9, 16], [-9 - width, -8], [-9 - width, 16], [12, -22], [12, 30]];
    for (const [dx, dy] of places) {
      const area = { x0: x + dx, x1: x + dx + width, y0: y + dy - 11, y1: y + dy + 3 };
      if (meets(area)) continue;
      taken.push(area);
      box.root.append(svg("text", { class: "name", x: area.x0 + 2, y: y + dy, "data-arm": arm.index }, name));
      break;
    }
  }
}

function told(place, lines) {
  place.replaceChildren(...lines.map((line) => h("p", { class: "beside" }, line)));
}

// Drawn when it comes into view, again when something is chosen, and when the width changes.
function chart(id, draw) {
  const place = document.getElementById(id);
  if (!place) return;
  let seen = false, width = 0;
  const redraw = () => { if (seen) draw(place); };
  new IntersectionObserver((entries, watch) => {
    if (entries.some((entry) => entry.isIntersecting)) { seen = true; watch.disconnect(); width = place.clientWidth; draw(place); }
  }, { rootMargin: "400px" }).observe(place);
  new ResizeObserver(() => { if (seen && place.clientWidth !== width) { width = place.clientWidth; draw(place); } }).observe(place);
  window.addEventListener("beforeprint", () => { seen = true; draw(place); });
  onChange(redraw);
}

function arrow(x, y, left) {
  const way = left ? -6 : 6;
  return svg("path", { class: "arrow", d: `M${x} ${y - 5}L${x + way} ${y}L${x} ${y + 5}` });
}
