"use strict";
// One method against another, a dot per task. Plotly reads a little markup in its texts, so names are escaped.

const MARKS = { good: "circle", fair: "circle", warn: "diamond", none: "circle-open" };

function literal(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// What the x axis can be besides the AUROC of a method; no method has such a name.
const SIZES = {
  "#labels": { title: "Labels of the task", key: "labels", of: (active, inactive) => active + inactive },
  "#share": { title: "Share of actives", key: "share", of: (active, inactive) => active / (active + inactive) },
};

function acrossOf(split, x) {
  if (!SIZES[x]) return split.values[x].auroc;
  return split.task.map((_, i) => (known(split.n_active[i]) && known(split.n_inactive[i]) ? SIZES[x].of(split.n_active[i], split.n_inactive[i]) : null));
}

/* Verdict of every task about y, where the curves of x and y were tested: 0 better, 1 worse, 2 same, 3 undefined. */
function testOf(split, x, y) {
  const turned = [1, 0, 2, 3];
  for (const { a, b, verdict, permutations } of split.tests) {
    if (a === y && b === x) return { verdict, permutations };
    if (a === x && b === y) return { verdict: verdict.map((code) => (known(code) ? turned[code] : null)), permutations };
  }
  return null;
}

/* How dots are told apart: by verdict where there is one, else by reading. */
function kindsOf(split, x, y) {
  const test = testOf(split, x, y);
  if (test) {
    const names = [`${labelOf(split, y)} better`, `${labelOf(split, x)} better`, "no significant difference", "not tested"];
    const kinds = [["image", "circle"], ["cell", "diamond"], ["baseline", "circle"], ["baseline", "circle-open"]];
    const codes = test.verdict.map((code) => (known(code) ? code : 3));
    return { codes, kinds: kinds.map(([tone, symbol], code) => ({ name: names[code], tone, symbol })), test };
  }
  const tones = { good: "good", fair: "fair", warn: "warn", none: "baseline" };
  return { codes: split.readings[split.lead] || [], kinds: report.readings.map(({ name, tone }) => ({ name, tone: tones[tone], symbol: MARKS[tone] })), test };
}

/* Tasks that have both values, as one trace per kind so that the legend explains the colours. */
function tracesOf(split, x, y, { codes, kinds }) {
  const [across, up] = [acrossOf(split, x), split.values[y].auroc];
  return kinds.map(({ name, tone, symbol }, code) => {
    const at = split.task.map((_, i) => i).filter((i) => known(across[i]) && known(up[i]) && codes[i] === code);
    return {
      type: "scatter", mode: "markers", name: literal(name), x: at.map((i) => across[i]), y: at.map((i) => up[i]),
      text: at.map((i) => `<b>${literal(split.task[i])}</b><br>${split.n_active[i]} active, ${split.n_inactive[i]} inactive<br>x ${fixed(across[i])}, y ${fixed(up[i])}<br>${literal(name)}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { size: 9, symbol, color: colour(tone), opacity: 0.85, line: { width: 1.2, color: symbol.endsWith("open") ? colour("baseline") : colour("surface") } },
    };
  }).filter((trace) => trace.x.length);
}

function layoutOf(split, x, y, low) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("text") };
  const axis = (name) => ({
    title: { text: `AUROC, ${literal(labelOf(split, name))}`, standoff: 10, font: { size: 13 } }, range: [low, 1.02], dtick: 0.1, tickformat: ".1f", gridcolor: colour("line"),
    zeroline: false, linecolor: colour("line-strong"), constrain: "domain",
  });
  const line = (x0, y0, x1, y1, dash, xref = "x") => ({ type: "line", xref, x0, y0, x1, y1, layer: "between", line: { color: colour("muted"), width: 1, dash } });
  const sized = SIZES[x];
  const free = sized && { ...axis(x), title: { text: sized.title, standoff: 10, font: { size: 13 } }, range: undefined, dtick: undefined, type: x === "#labels" ? "log" : "linear", tickformat: x === "#labels" ? ",d" : ".0%" };
  return {
    font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 62, r: 12, t: 12, b: 56 }, hovermode: "closest",
    xaxis: free || { ...axis(x), constraintoward: "left" }, yaxis: sized ? axis(y) : { ...axis(y), scaleanchor: "x", constraintoward: "top" },
    shapes: sized ? [line(0, 0.5, 1, 0.5, "dot", "paper")] : [line(low, low, 1.02, 1.02, "solid"), line(0.5, low, 0.5, 1.02, "dot"), line(low, 0.5, 1.02, 0.5, "dot")],
    legend: { orientation: "h", y: -0.13, yanchor: "top", x: 0, font: { size: 12 } }, showlegend: true,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("text") },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line-strong"), font, align: "left" },
  };
}

function pearson(pairs) {
  const mean = (side) => pairs.reduce((sum, pair) => sum + pair[side], 0) / pairs.length;
  const [left, right] = [mean(0), mean(1)];
  const sum = (one, other) => pairs.reduce((total, pair) => total + (pair[one] - [left, right][one]) * (pair[other] - [left, right][other]), 0);
  const r = sum(0, 1) / Math.sqrt(sum(0, 0) * sum(1, 1));
  return pairs.length > 2 && Number.isFinite(r) ? r : null;
}

/* The chart in words. */
function saidOf(split, x, y, pairs, test) {
  if (!pairs.length) return "No task has a result from both.";
  if (SIZES[x]) {
    const of = split.dependence[y];
    return `AUROC of ${labelOf(split, y)} against ${SIZES[x].title.toLowerCase()}, ${pairs.length} tasks: Spearman’s ρ ${signed(of[SIZES[x].key])}.`;
  }
  const better = pairs.filter(([left, right]) => right > left).length;
  const mean = pairs.reduce((sum, [left, right]) => sum + right - left, 0) / pairs.length;
  const said = `${labelOf(split, y)} is better than ${labelOf(split, x)} in ${better} of ${pairs.length} tasks; mean difference in AUROC ${signed(mean, 3)}; Pearson’s r ${signed(pearson(pairs))}.`;
  if (!test) return `${said} Their ROC curves were not tested against each other.`;
  const count = (code) => test.verdict.filter((value) => value === code).length;
  return `${said} By a paired permutation test of the ROC curves (${test.permutations} permutations, p at most 0.05) it is better in ${count(0)} tasks, worse in ${count(1)}, and not significantly different in ${count(2)}.`;
}

function scatter() {
  const split = report.splits[Number(byId("scatter-split").value)];
  const [x, y] = [byId("scatter-x").value, byId("scatter-y").value];
  const kinds = kindsOf(split, x, y);
  const traces = tracesOf(split, x, y, kinds);
  const pairs = traces.flatMap((trace) => trace.x.map((value, i) => [value, trace.y[i]]));
  const low = Math.min(0.4, ...(SIZES[x] ? pairs.map((pair) => pair[1]) : pairs.flat()).map((value) => Math.floor(value * 10 - 0.2) / 10));
  const settings = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  Plotly.newPlot("scatter", traces, layoutOf(split, x, y, low), settings);
  byId("scatter-text").textContent = saidOf(split, x, y, pairs, kinds.test);
}

function chooseScatterSplit() {
  const split = report.splits[Number(byId("scatter-split").value)];
  const entries = split.methods.map((method) => [method.name, method.label]);
  const rival = [split.chemistry, split.cell_count, ...split.methods.map((method) => method.name)].find((name) => name && name !== split.lead);
  const keep = (id, other) => (split.methods.some((method) => method.name === byId(id).value) ? byId(id).value : other);
  const sizes = Object.entries(SIZES).map(([name, { title }]) => [name, title]);
  const x = SIZES[byId("scatter-x").value] ? byId("scatter-x").value : keep("scatter-x", rival || split.lead);
  const y = keep("scatter-y", split.lead);
  fill(byId("scatter-x"), [...entries, ...sizes], x);
  fill(byId("scatter-y"), entries, y);
  scatter();
}

if (report.splits.some((split) => split.methods.length)) {
  const usable = report.splits.map((split, i) => [String(i), split.name]).filter(([i]) => report.splits[i].methods.length);
  fill(byId("scatter-split"), usable, usable[0][0]);
  byId("scatter-split").addEventListener("change", chooseScatterSplit);
  byId("scatter-x").addEventListener("change", scatter);
  byId("scatter-y").addEventListener("change", scatter);
  chooseScatterSplit();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", scatter);
}

// On paper everything is open.
addEventListener("beforeprint", () => document.querySelectorAll(".cards").forEach((cards) => { if (cards.parentElement.tagName === "DETAILS") cards.parentElement.open = true; }));
