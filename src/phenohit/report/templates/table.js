"use strict";
// The table of tasks. Whatever comes from data is set as text or as an attribute, never as markup.

const report = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const state = { split: 0, method: "", search: "", minimum: "", reading: "", sort: "auroc", down: true };

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

const known = (value) => value !== null && value !== undefined;
const fixed = (value, digits = 2) => (known(value) ? value.toFixed(digits) : "–");
const signed = (value, digits = 2) => {
  if (!known(value)) return "–";
  const size = Math.abs(value).toFixed(digits);
  return (Number(size) === 0 ? "" : value > 0 ? "+" : "−") + size;
};
const labelOf = (split, name) => (split.methods.find((method) => method.name === name) || { label: name }).label;

function fill(select, entries, chosen) {
  select.replaceChildren(...entries.map(([value, text]) => element("option", { value }, text)));
  select.value = chosen;
}

/* One row per task, with the numbers of the chosen method and of what it is compared with. */
function rowsOf(split, method) {
  const take = (name, metric) => (i) => (name && split.values[name] && split.values[name][metric] ? split.values[name][metric][i] : null);
  const of = {
    auroc: take(method, "auroc"), low: take(method, "auroc_low"), high: take(method, "auroc_high"),
    chanceLow: take(method, "chance_low"), chanceHigh: take(method, "chance_high"),
    ap: take(method, "average_precision"), delta: take(method, "delta_auprc"),
    cell: take(split.cell_count, "auroc"), plate: take(split.plate, "auroc"), chemistry: take(split.chemistry, "auroc"),
  };
  const readings = split.readings[method] || [];
  return split.task.map((task, i) => {
    const row = { i, task, assay: split.assay[i], threshold: split.threshold[i], active: split.n_active[i], inactive: split.n_inactive[i] };
    for (const [key, at] of Object.entries(of)) row[key] = at(i);
    row.reading = known(readings[i]) ? readings[i] : report.readings.length - 1;
    return row;
  });
}

const COLUMNS = [
  { key: "task", title: "Task", text: true },
  { key: "reading", title: "Reading", text: true },
  { key: "auroc", title: "AUROC", n: true },
  { key: "bar", plain: true },
  { key: "cell", title: "Cell count", n: true, needs: "cell_count" },
  { key: "plate", title: "Plate", n: true, needs: "plate" },
  { key: "chemistry", title: "Chemistry", n: true, needs: "chemistry" },
  { key: "ap", title: "AP", n: true },
  { key: "delta", title: "ΔAP", n: true },
  { key: "active", title: "Active", n: true },
  { key: "inactive", title: "Inactive", n: true },
];

const shownColumns = (split) => COLUMNS.filter((column) => !column.needs || split[column.needs]);

function compareRows(a, b) {
  const [left, right] = [a[state.sort], b[state.sort]];
  if (!known(left) || !known(right)) return known(left) ? -1 : known(right) ? 1 : a.i - b.i; // undefined last, either way
  const order = typeof left === "string" ? left.localeCompare(right, undefined, { numeric: true }) : left - right;
  return (state.down ? -order : order) || a.i - b.i;
}

function chosenRows(split) {
  const wanted = state.search.trim().toLowerCase();
  return rowsOf(split, state.method)
    .filter((row) => state.minimum === "" || (known(row.auroc) && row.auroc > Number(state.minimum)))
    .filter((row) => state.reading === "" || row.reading === Number(state.reading))
    .filter((row) => !wanted || `${row.task} ${row.assay} ${report.readings[row.reading].name}`.toLowerCase().includes(wanted))
    .sort(compareRows);
}

const LEFT = 0.2, WIDE = 190, HIGH = 22;
const place = (value) => 4 + (WIDE - 8) * (Math.min(Math.max(value, LEFT), 1) - LEFT) / (1 - LEFT);

function bar(row, split) {
  const svg = drawn("svg", { class: "bar", viewBox: `0 0 ${WIDE} ${HIGH}`, width: WIDE, height: HIGH, role: "img" });
  const said = [`AUROC ${fixed(row.auroc)}`];
  const line = (kind, x1, x2, y1, y2) => svg.append(drawn("line", { class: kind, x1, x2, y1, y2 }));
  line("axis", 0, WIDE, HIGH / 2, HIGH / 2);
  if (known(row.chanceLow) && known(row.chanceHigh)) {
    svg.append(drawn("rect", { class: "chance", x: place(row.chanceLow), y: 4, width: Math.max(place(row.chanceHigh) - place(row.chanceLow), 1), height: HIGH - 8 }));
    said.push(`chance range ${fixed(row.chanceLow)} to ${fixed(row.chanceHigh)}`);
  }
  line("half", place(0.5), place(0.5), 1, HIGH - 1);
  if (known(row.low) && known(row.high)) {
    line("interval", place(row.low), place(row.high), HIGH / 2, HIGH / 2);
    said.push(`interval ${fixed(row.low)} to ${fixed(row.high)}`);
  }
  for (const [kind, value, name] of [["plate", row.plate, "plate"], ["cell", row.cell, "cell count"]]) {
    if (!known(value)) continue;
    line(kind, place(value), place(value), 2, HIGH - 2);
    said.push(`${name} ${fixed(value)}`);
  }
  if (known(row.chemistry)) {
    const x = place(row.chemistry), y = HIGH / 2;
    svg.append(drawn("path", { class: "chem", d: `M${x} ${y - 5}l5 5-5 5-5-5z` }));
    said.push(`chemistry ${fixed(row.chemistry)}`);
  }
  if (known(row.auroc)) svg.append(drawn("circle", { class: "value", cx: place(row.auroc), cy: HIGH / 2, r: 4 }));
  svg.setAttribute("aria-label", said.join(", "));
  svg.append(drawn("title", {}));
  svg.lastChild.textContent = said.join(", ");
  return svg;
}

/* The axis above the bars. */
function scale() {
  const svg = drawn("svg", { class: "bar scale", viewBox: `0 0 ${WIDE} 16`, width: WIDE, height: 16, role: "img", "aria-label": "AUROC from 0.2 to 1.0" });
  for (const value of [0.2, 0.5, 0.7, 1]) {
    const text = drawn("text", { x: place(value), y: 12, "text-anchor": "middle" });
    text.textContent = value.toFixed(1);
    svg.append(text);
  }
  return svg;
}

function taskCell(row, width) {
  const button = element("button", { type: "button", "aria-expanded": "false" }, row.task);
  button.addEventListener("click", () => toggle(button, row, width));
  const parts = [];
  const named = row.assay && row.task.startsWith(row.assay); // then the task's name says it all
  if (row.assay && !named) parts.push(`assay ${row.assay}`);
  if (known(row.threshold) && !(named && row.task.includes(String(row.threshold)))) parts.push(`active from ${row.threshold}`);
  return element("th", { scope: "row" }, button, parts.length ? element("small", {}, parts.join(", ")) : null);
}

function cellOf(column, row, split, width) {
  if (column.key === "task") return taskCell(row, width);
  if (column.key === "bar") return element("td", {}, bar(row, split));
  if (column.key === "reading") {
    const reading = report.readings[row.reading];
    return element("td", {}, element("span", { class: `reading ${reading.tone}`, title: reading.text }, reading.name));
  }
  if (column.key === "auroc") {
    const interval = known(row.low) && known(row.high) ? element("small", {}, `${fixed(row.low)}–${fixed(row.high)}`) : null;
    return element("td", { class: "n" }, element("strong", {}, fixed(row.auroc)), interval);
  }
  const value = row[column.key];
  const text = column.key === "delta" ? signed(value) : Number.isInteger(value) && /active/.test(column.key) ? value.toLocaleString("en") : fixed(value);
  return element("td", { class: "n" }, text);
}

const DETAILS = [
  ["auroc", "AUROC"], ["average_precision", "AP"], ["delta_auprc", "ΔAP"], ["riptop_auprc", "RIPtoP"], ["f1", "F1"],
  ["balanced_accuracy", "Bal. acc."], ["adjusted_balanced_accuracy", "Bal. acc. adj."], ["kappa", "Kappa"], ["n_folds", "Folds"],
];

/* Every method's numbers for one task, below its row. */
function toggle(button, row, width) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  const here = button.closest("tr");
  if (open) {
    here.nextElementSibling.remove();
    return;
  }
  const split = report.splits[state.split];
  const head = element("tr", {}, element("th", { scope: "col" }, "Method"), ...DETAILS.map(([, title]) => element("th", { scope: "col", class: "n" }, title)));
  const body = split.methods.map((method) => {
    const at = (metric) => (split.values[method.name][metric] ? split.values[method.name][metric][row.i] : null);
    const cells = DETAILS.map(([metric]) => {
      const interval = metric === "auroc" && known(at("auroc_low")) ? ` (${fixed(at("auroc_low"))}–${fixed(at("auroc_high"))})` : "";
      return element("td", { class: "n" }, fixed(at(metric), metric === "n_folds" ? 0 : 2) + interval);
    });
    return element("tr", {}, element("th", { scope: "row" }, method.label), ...cells);
  });
  const table = element("table", {}, element("thead", {}, head), element("tbody", {}, ...body));
  here.after(element("tr", { class: "more" }, element("td", { colspan: width }, table)));
}

function show() {
  const split = report.splits[state.split];
  const columns = shownColumns(split);
  const rows = chosenRows(split);
  const head = element("tr");
  for (const column of columns) {
    const cell = element("th", { scope: "col", ...(column.n ? { class: "n" } : {}) });
    if (column.plain) cell.append(scale());
    else {
      const button = element("button", { type: "button", "data-sort": column.key }, column.title);
      button.addEventListener("click", () => {
        state.down = state.sort === column.key ? !state.down : !column.text;
        state.sort = column.key;
        show();
        document.querySelector(`#tasks [data-sort="${column.key}"]`).focus();
      });
      cell.append(button);
    }
    if (state.sort === column.key) cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    head.append(cell);
  }
  const body = rows.map((row) => element("tr", {}, ...columns.map((column) => cellOf(column, row, split, columns.length))));
  const none = element("tr", {}, element("td", { colspan: columns.length, class: "muted" }, "No task fits these filters."));
  byId("tasks").querySelector("thead").replaceChildren(head);
  byId("tasks").querySelector("tbody").replaceChildren(...(body.length ? body : [none]));
  byId("tasks-box").classList.toggle("tall", rows.length > 40); // a short table needs no scrolling of its own
  byId("status").textContent = `${rows.length.toLocaleString("en")} of ${split.task.length.toLocaleString("en")} tasks, ${labelOf(split, state.method)}, split ‘${split.name}’`;
  for (const name of ["cell", "plate", "chemistry"]) {
    const there = split[name === "cell" ? "cell_count" : name];
    document.querySelectorAll(`.needs-${name}`).forEach((part) => { part.hidden = !there; });
  }
}

function chooseSplit(number) {
  state.split = number;
  const split = report.splits[number];
  const readable = split.methods.filter((method) => split.readings[method.name]);
  state.method = readable.some((method) => method.name === state.method) ? state.method : split.lead;
  fill(byId("method"), readable.map((method) => [method.name, method.label]), state.method);
  byId("split").value = String(number);
  show();
}

/* A cell that a spreadsheet would take for a formula gets an apostrophe; numbers stay numbers. */
function csvCell(value) {
  let text = known(value) ? String(value) : "";
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function tableAsCsv() {
  const split = report.splits[state.split];
  const keys = ["task", "assay", "threshold", "active", "inactive", "auroc", "low", "high", "chanceLow", "chanceHigh", "cell", "plate", "chemistry", "ap", "delta"];
  const names = ["task", "assay", "threshold", "n_active", "n_inactive", "auroc", "auroc_low", "auroc_high", "chance_low", "chance_high", "auroc_cell_count", "auroc_plate", "auroc_chemistry", "average_precision", "delta_auprc"];
  const lines = chosenRows(split).map((row) => [split.name, state.method, ...keys.map((key) => row[key]), report.readings[row.reading].name].map(csvCell).join(","));
  return [["split", "method", ...names, "reading"].join(","), ...lines].join("\n") + "\n";
}

function download() {
  const link = element("a", { href: URL.createObjectURL(new Blob([tableAsCsv()], { type: "text/csv" })), download: "tasks.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

if (report.splits.length) {
  fill(byId("split"), report.splits.map((split, i) => [String(i), split.name]), "0");
  byId("reading").append(...report.readings.map((reading, i) => element("option", { value: String(i) }, reading.name)));
  byId("split").addEventListener("change", (event) => chooseSplit(Number(event.target.value)));
  for (const id of ["method", "minimum", "reading"]) byId(id).addEventListener("change", (event) => { state[id] = event.target.value; show(); });
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; show(); });
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  byId("download").addEventListener("click", download);
  chooseSplit(0);
}
