"use strict";
// One method against another, a dot per task. Plotly reads a little markup in its texts, so names are escaped.

const MARKS = { good: "circle", fair: "circle", warn: "diamond", none: "circle-open" };

function literal(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/* Tasks that both methods score, as one trace per reading so that the legend explains the colours. */
function tracesOf(split, x, y) {
  const [across, up] = [split.values[x].auroc, split.values[y].auroc];
  const readings = split.readings[split.lead] || [];
  const tones = { good: "good", fair: "fair", warn: "warn", none: "baseline" };
  return report.readings.map((reading, code) => {
    const at = split.task.map((_, i) => i).filter((i) => known(across[i]) && known(up[i]) && readings[i] === code);
    return {
      type: "scatter", mode: "markers", name: reading.name, x: at.map((i) => across[i]), y: at.map((i) => up[i]),
      text: at.map((i) => `<b>${literal(split.task[i])}</b><br>${split.n_active[i]} active, ${split.n_inactive[i]} inactive<br>x ${fixed(across[i])}, y ${fixed(up[i])}<br>${reading.name}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { size: 9, symbol: MARKS[reading.tone], color: colour(tones[reading.tone]), opacity: 0.85, line: { width: 1.2, color: reading.tone === "none" ? colour("baseline") : colour("surface") } },
    };
  }).filter((trace) => trace.x.length);
}

function layoutOf(split, x, y, low) {
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: colour("text") };
  const axis = (name) => ({
    title: { text: `AUROC, ${literal(labelOf(split, name))}`, standoff: 10, font: { size: 13 } }, range: [low, 1.02], dtick: 0.1, tickformat: ".1f", gridcolor: colour("line"),
    zeroline: false, linecolor: colour("line-strong"), constrain: "domain",
  });
  const line = (x0, y0, x1, y1, dash) => ({ type: "line", x0, y0, x1, y1, layer: "between", line: { color: colour("muted"), width: 1, dash } });
  return {
    font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 62, r: 12, t: 12, b: 56 }, hovermode: "closest",
    xaxis: { ...axis(x), constraintoward: "left" }, yaxis: { ...axis(y), scaleanchor: "x", constraintoward: "top" },
    shapes: [line(low, low, 1.02, 1.02, "solid"), line(0.5, low, 0.5, 1.02, "dot"), line(low, 0.5, 1.02, 0.5, "dot")],
    legend: { orientation: "h", y: -0.13, yanchor: "top", x: 0, font: { size: 12 } }, showlegend: true,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("text") },
    hoverlabel: { bgcolor: colour("surface"), bordercolor: colour("line-strong"), font, align: "left" },
  };
}

function scatter() {
  const split = report.splits[Number(byId("scatter-split").value)];
  const [x, y] = [byId("scatter-x").value, byId("scatter-y").value];
  const traces = tracesOf(split, x, y);
  const pairs = traces.flatMap((trace) => trace.x.map((value, i) => [value, trace.y[i]]));
  const low = Math.min(0.4, ...pairs.flat().map((value) => Math.floor(value * 10 - 0.2) / 10));
  const settings = { displaylogo: false, responsive: true, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
  Plotly.react("scatter", traces, layoutOf(split, x, y, low), settings);
  const better = pairs.filter(([left, right]) => right > left).length;
  const mean = pairs.reduce((sum, [left, right]) => sum + right - left, 0) / Math.max(pairs.length, 1);
  byId("scatter-text").textContent = pairs.length
    ? `${labelOf(split, y)} is better than ${labelOf(split, x)} in ${better} of ${pairs.length} tasks; mean difference in AUROC ${signed(mean, 3)}.`
    : "No task has a result from both methods.";
}

function chooseScatterSplit() {
  const split = report.splits[Number(byId("scatter-split").value)];
  const entries = split.methods.map((method) => [method.name, method.label]);
  const rival = [split.chemistry, split.cell_count, ...split.methods.map((method) => method.name)].find((name) => name && name !== split.lead);
  const keep = (id, other) => (split.methods.some((method) => method.name === byId(id).value) ? byId(id).value : other);
  const [x, y] = [keep("scatter-x", rival || split.lead), keep("scatter-y", split.lead)];
  fill(byId("scatter-x"), entries, x);
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
