// Arms with their seeds folded into mean, spread and number, or every run; what is equal everywhere is left out.

const table = { mode: "arms", all: false, unfolded: new Set(), sort: { key: null, down: false } };
const metric = data.metric, digits = metric.decimals;

const columns = [
  { key: "arm", head: "arm", left: true, keep: true, value: (arm) => arm.name, cell: armCell, run: runCell },
  { key: "verdict", head: "verdict", left: true, keep: true, value: (arm) => arm.verdict, cell: verdictCell, run: statusCell },
  {
    key: "metric", head: metric.unit, small: "± sd over seeds", keep: true, value: (arm) => arm.mean,
    cell: (arm) => [fixed(arm.mean, digits), small(known(arm.sd) ? "± " + fixed(arm.sd, digits) : "")],
    ofRun: (run) => run.metric, run: (run) => fixed(run.metric, digits + 1),
  },
  {
    key: "difference", head: "difference", small: "[95 % interval]", keep: true, value: (arm) => arm.difference,
    cell: (arm) => arm.base ? "baseline" : arm.refused ? "refused"
      : [signed(arm.difference, digits), small(known(arm.low) ? `[${fixed(arm.low, digits)}, ${fixed(arm.high, digits)}]` : "")],
  },
  { key: "p", head: "p", small: "(Holm)", value: (arm) => arm.p,
    cell: (arm) => known(arm.p) ? [three(arm.p), small(known(arm.p_holm) ? `(${three(arm.p_holm)})` : "")] : NONE },
  { key: "n", head: "n", small: "seeds", value: (arm) => arm.n, ofRun: (run) => run.seed, run: (run) => "seed " + run.seed },
  ...data.axes.map((axis) => ({ key: axis, head: axis, left: true, value: (arm) => arm.choices[axis] })),
  ...data.costs.map((cost) => ({
    key: cost.key, head: cost.head, small: cost.small, value: (arm) => arm[cost.key],
    cell: (arm) => [si(arm[cost.key], cost.unit), small((arm.beside || {})[cost.key] || "")],
    ofRun: (run) => run[cost.key], run: (run) => si(run[cost.key], cost.unit),
  })),
  { key: "ended", head: "runs", left: true, value: (arm) => arm.ended, run: (run) => run.error || "" },
];

function small(text) {
  return text ? h("small", null, text) : null;
}

function armCell(arm) {
  const open = table.all || table.unfolded.has(arm.index);
  const unfold = () => { if (!table.unfolded.delete(arm.index)) table.unfolded.add(arm.index); drawTable(); };
  return [
    h("button", { class: "fold", "aria-expanded": String(open), "aria-label": `seeds of ${arm.name}`, click: unfold }, open ? "▾" : "▸"),
    h("label", null, h("input", { type: "checkbox", checked: state.picked.has(arm.index), change: () => pick(arm) }), " " + arm.name),
  ];
}

function runCell(run) {
  const link = (file, text) => h("a", { href: `../${encodeURIComponent(run.name)}/${file}` }, text);
  return [h("span", { class: "run" }, run.name), small(""), h("small", null, link("config.yaml", "config"), " · ", link("metrics.jsonl", "log"), " · ", link("summary.json", "summary"))];
}

function verdictCell(arm) {
  return h("span", { class: "verdict " + arm.kind }, arm.verdict);
}

function statusCell(run) {
  return h("span", { class: "status " + run.status }, run.status);
}

function rowsOfRuns(runs) {
  const column = columns.find((one) => one.key === table.sort.key);
  const value = column && (column.ofRun || ((run) => column.value(arms[run.arm])));
  return sorted(runs.filter((run) => holds(wordsOf(run))), value || ((run) => run.seed));
}

function sorted(rows, value) {
  const sign = table.sort.key && table.sort.down ? -1 : 1;
  const missing = (v) => v === null || v === undefined || v === "";
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (missing(x) || missing(y)) return missing(x) - missing(y);
    return sign * (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y)));
  });
}

function varies(column, rows) {
  return column.keep || new Set(rows.map((arm) => JSON.stringify(column.value(arm) ?? null))).size > 1;
}

function drawTable() {
  const shown = shownArms(), byColumn = columns.find((one) => one.key === table.sort.key);
  const used = columns.filter((column) => !document.getElementById("hide-equal").checked || varies(column, shown));
  const head = used.map((column) => h("th", {
    scope: "col", class: column.left ? "left" : null,
    "aria-sort": table.sort.key === column.key ? (table.sort.down ? "descending" : "ascending") : null,
  }, h("button", { click: () => sortBy(column.key) }, column.head), small(column.small)));
  const row = (arm) => h("tr", { "data-arm": arm.index, class: arm.base ? "base" : null },
    used.map((column) => h("td", { class: column.left ? "left" : null }, [column.cell ? column.cell(arm) : String(column.value(arm) ?? NONE)].flat())));
  const runRow = (run) => h("tr", { "data-arm": run.arm, class: "of-run" },
    used.map((column) => h("td", { class: column.left ? "left" : null }, [column.run ? column.run(run) : ""].flat())));
  const body = table.mode === "runs" ? rowsOfRuns(shown.flatMap((arm) => arm.runs)).map(runRow)
    : (byColumn ? sorted(shown, byColumn.value) : shown).flatMap((arm) =>
      [row(arm), ...(table.all || table.unfolded.has(arm.index) ? rowsOfRuns(arm.runs).map(runRow) : [])]);
  document.getElementById("arms-table").replaceChildren(h("thead", null, h("tr", null, head)), h("tbody", null, body));
  const [n, runs] = [shown.length, shown.flatMap((arm) => arm.runs.filter((run) => holds(wordsOf(run)))).length];
  document.getElementById("shown").textContent = `${n} of ${arms.length} arms, ${runs} of ${data.runs.length} runs`;
  drawDifference();
}

function sortBy(key) {
  table.sort = { key, down: table.sort.key === key && !table.sort.down };
  drawTable();
  [...document.querySelectorAll("#arms-table th[aria-sort] button")].forEach((button) => button.focus());
}

// What two picked arms, or one and the baseline, do not share.
function drawDifference() {
  const picked = [...state.picked].map((index) => arms[index]), base = arms.find((arm) => arm.base);
  const [one, other] = picked.length === 1 && !picked[0].base ? [base, picked[0]] : picked;
  const place = document.getElementById("config-difference");
  if (picked.length > 2 || !one || !other) {
    const many = picked.length > 2 ? `${picked.length} arms are picked; pick two to see what their configs do not share.` : "";
    return place.replaceChildren(...(many ? [h("p", null, many)] : []));
  }
  const keys = [...new Set([...Object.keys(one.config), ...Object.keys(other.config)])].sort();
  const rows = keys.filter((key) => one.config[key] !== other.config[key])
    .map((key) => h("tr", null, h("td", { class: "left" }, key), ...[one, other].map((arm) => h("td", { class: "left" }, arm.config[key] ?? NONE))));
  place.replaceChildren(
    h("h3", null, `${other.name} against ${one.name}: what their configs do not share`),
    rows.length ? h("div", { class: "wide" }, h("table", { class: "plain" },
      h("thead", null, h("tr", null, ["key", one.name, other.name].map((text) => h("th", { scope: "col", class: "left" }, text)))), h("tbody", null, rows)))
      : h("p", null, "Nothing: one config under two names."));
}

document.getElementById("filter").addEventListener("input", (event) => {
  state.words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  changed();
});
document.getElementById("hide-equal").addEventListener("change", drawTable);
document.getElementById("unfold").addEventListener("change", (event) => { table.all = event.target.checked; drawTable(); });
document.getElementById("mode").addEventListener("change", (event) => { table.mode = event.target.value; drawTable(); });
onChange(drawTable);
