// Elements, and numbers as text.

const SVG = "http://www.w3.org/2000/svg";

function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const known = (value) => typeof value === "number" && isFinite(value);
const NONE = "–";

function fixed(value, digits) {
  return known(value) ? value.toFixed(digits).replace("-", "−") : NONE;
}

function signed(value, digits) {
  return known(value) ? (value > 0 ? "+" : "") + fixed(value, digits) : NONE;
}

function three(value) {
  if (!known(value)) return NONE;
  if (value !== 0 && (Math.abs(value) >= 1e7 || Math.abs(value) < 1e-4)) return value.toExponential(2).replace("-", "−");
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

function prefixOf(value, unit) {
  for (const [scale, prefix] of [[1e15, "P"], [1e12, "T"], [1e9, unit ? "G" : "B"], [1e6, "M"], [1e3, "k"]])
    if (Math.abs(value) >= 0.9995 * scale) return [scale, prefix];
  return [1, ""];
}

// 25123 -> 25.1k, and 4.1e8 in B -> 410 MB
function si(value, unit = "") {
  if (!known(value)) return NONE;
  const [scale, prefix] = prefixOf(value, unit);
  return three(value / scale) + (unit ? " " + prefix + unit : prefix);
}

// The same where neighbours are a step apart: 117.2k where 117k would stand there twice.
function tickText(value, step, unit = "") {
  if (!value) return "0";
  const [scale, prefix] = prefixOf(value, unit);
  const digits = [0, 1, 2, 3, 4, 5].find((count) => Math.abs(Number((value / scale).toFixed(count)) - value / scale) <= 0.01 * step / scale) ?? 6;
  return fixed(value / scale, digits) + (unit ? " " + prefix + unit : prefix);
}

function mean(values) {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function sd(values) {
  const centre = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (values.length - 1));
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1), below = Math.floor(place);
  return sorted[below] + (place - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}
